"""The keys that this process holds. They are used only while etcd has proven lately that the cluster is
unsealed, and wiped ten seconds after the last proof.

Where to look:
    held_keys            the keys, and the rules of freshness; no I/O
    key_holders          whether anybody holds a key: by etcd, and by asking replicas
    freshness_watch      proofs, wiping when it is time, and what follows
    process_replacement  a process that has wiped is replaced by a new one
    replica_record       what this replica says of itself in etcd
    seal_confirmations   who has confirmed a sealing
    seal_when_unheld     etcd says unsealed, nobody holds a key: it is called sealed
"""
