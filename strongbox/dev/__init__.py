"""The local cluster: `strongbox dev up|down|status`, and the same for tests (`cluster.Cluster`).

One *runner* process stays and owns every other one: per node an etcd member, five services and a gateway, and
one PostgreSQL beside them. It reaps what dies and starts it again only when asked.

    layout.py                               what a cluster is made of: folder, nodes, ports
    ports.py, hosts.py                      free ports; where the nodes live
    certs.py                                certificates, made on the spot
    etcd.py, services.py, envoy.py,
    postgres.py                             how each process is started, and when it is ready
    processes.py                            children and pids
    runner.py, runner_socket.py             the process that stays, and how it is asked
    unseal.py                               init and unseal over REST
    commands.py, cli.py, detached.py        up, down, status
    cluster.py                              for tests: kill, pause, restart
    demo.py                                 `make run`
"""
