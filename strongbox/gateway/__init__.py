"""The gateway's configuration, made from gateway/envoy.yaml and the protos;
for the local cluster and for Kubernetes.

Where to look:
    configuration  the whole of it
    routes         a route for each public RPC
    source_limits  requests of one source
    replies        the gateway's own answers
    template       the marks of the template
"""
