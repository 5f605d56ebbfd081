"""From shares to keys, and back to sealed.

Where to look:
    initialize      a new cluster's keys, shares and records, made once
    share_exchange  shares counted in etcd, exchanged with peers, put together
    open_keyring    from the root key to holding the keys
    seal_cluster    sealing, until every process has confirmed it
"""
