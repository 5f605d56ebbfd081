"""gRPC, both sides: servers of ours, channels to them, and what the seal service is asked.

Where to look:
    server           mutual TLS, health, reflection
    interceptors     what is done once for every call
    method_rules     the `rule` option beside each REST path
    request_context  what is known of a call
    peer_identity    the SPIFFE id of the other side
    error_mapping    errors and status codes
    deadlines        calls that outlive theirs are ended
    revealing        no secret leaves after `seal`
    channel          channels to services
    key_client       wrap, unwrap, record keys
    seal_stream      one stream to one seal replica
    batching         several questions as one
"""
