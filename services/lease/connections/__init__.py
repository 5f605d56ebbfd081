"""Connections: a database server and the user by whom roles are made.

Where to look:
    connections           records; functions of a view
    database_roles        what credentials of a name may do
    connection_passwords  in etcd as envelopes only
    rotate_root           a connection's own password
    server_cache          the servers of this process
"""
