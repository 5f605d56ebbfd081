"""What an auditor runs: chain, Merkle tree, checkpoints and the offline verifier. Needs neither etcd nor gRPC
(a contract in .importlinter); used by services.audit, the client and the command.

Where to look:
    chain           entries and how they are hashed
    merkle          RFC 6962 hashes and proofs
    checkpoint      signed notes
    log_checker     files checked by the keys and checkpoints given
    verify_command  strongbox-verify
    key_file        what export-key answers
    archive_marker  what archiving leaves in the place of segments
    scan            reading the log on disk at opening
    stored_hashes   hashes on disk
    sparse_index    where entries stand
"""
