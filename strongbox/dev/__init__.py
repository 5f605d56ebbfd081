"""The local cluster: `strongbox dev up|down|status`, and the same for tests (`cluster.Cluster`).

One *runner* process stays and owns every other one: per node an etcd member, five services and a gateway, and
one PostgreSQL beside them. It reaps what dies and starts it again only when asked.

    layout.py      what a cluster is made of: folder, nodes, ports (DIR/layout.json, DIR/cluster.json)
    ports.py       free ports            certs.py      certificates, made on the spot
    etcd.py services.py gateway.py postgres.py         how each process is started, and when it is ready
    template.py replies.py routes.py                   what gateway/envoy.yaml is rendered with
    processes.py   children and pids      runner.py    the process that stays     control.py   how it is asked
    unseal.py      init and unseal over REST           commands.py, cli.py        up, down, status
    cluster.py     for tests: kill, pause, restart     demo.py                    `make run`
"""
