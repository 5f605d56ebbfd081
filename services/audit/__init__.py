"""The audit service: a copy of the chain on each node, its proofs, and the audit duty.

Where to look:
    serving      messages, filters, health, and the copy for log collectors
    duties       the audit duty and retention
    proofs       inclusion, consistency, checkpoints
    following    this replica follows the outbox
    log          the log on disk
    key_loading  its keys and its peers
    keys         the audit keys in this process
"""
