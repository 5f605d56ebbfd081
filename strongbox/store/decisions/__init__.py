"""A request is decided from memory, proved and carried out by one transaction, many at a time.

Where to look:
    view             what a decision reads and puts
    cache            what each key held
    deciding         from requests to decisions
    pipeline         group commit
    batch_txn        a batch as one transaction
    producer_cursor  whether a batch without an answer landed
    audit_journal    what the pipeline knows of the audit trail
"""
