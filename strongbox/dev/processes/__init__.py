"""How each process of a local cluster is started, and when it is ready. The runner starts them; tests and
benchmarks enter for a binary, a command line or a pid.

Where to look:
    children   a child process, pids that are sure, waiting and stopping
    etcd       which binary, a member, its users
    services   the five services and the gateway
    envoy      the gateway's binary and command line
    postgres   the PostgreSQL beside the cluster
"""
