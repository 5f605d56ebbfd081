"""The local cluster: `strongbox dev up|down|status`, and the same for tests (`cluster.Cluster`).

One *runner* process stays and owns every other one: per node an etcd member, five services and a gateway, and
one PostgreSQL beside them. It reaps what dies and starts it again only when asked.

Where to look:
    layout        what a cluster is made of: folder, nodes, ports
    ports, hosts  free ports; where the nodes live
    certs         certificates, made on the spot
    processes     how each process is started, and when it is ready
    unseal        init and unseal over REST
    runner        the process that stays; up, down, status
    cli           the command line
    cluster       for tests: kill, pause, restart
    demo          `make run`
"""
