"""The seal service: whether the cluster is unsealed, and the only process that holds the root key.

Where to look:
    status            health, readiness and late duties, as a seal replica sees them
    ceremonies        rekey and generate-root
    peer_unseal       a replica that restarts gets the root key from a peer
    unsealing         init, unseal and seal
    key_terms         rotation: key terms, their wraps and their end
    custody           the keys in this process: held while that is proven, then wiped
    keys              root key and keyring
    seal_decisions    sealed or unsealed, and the shares so far, as decisions
    cluster_overview  who is alive and unsealed, as etcd shows it
    key_stream        wrap and unwrap for the other services
    peer_calls        calls to the other seal replicas
    ordinal           this replica's ordinal, by its certificate
    worker_thread     long arithmetic, off the event loop
    repository        its records in etcd
"""
