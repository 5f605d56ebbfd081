"""Our etcd client; nobody else speaks etcd's messages.

Where to look:
    client      reads, transactions, leases, upkeep
    attempts    one question, several attempts
    patience    how long an attempt may take
    endpoints   channels, and which to use
    watch       loses and repeats nothing
    txn         builders
    errors      what may have happened
    etcd_roles  who may touch which keys
    etcd_users  etcd's users brought in line with that
"""
