"""A request is decided from memory, proved and carried out by one transaction, many at a time.

Where to look:
    view             what a decision reads and puts
    cache            what each key held
    work             a request, on its way and its outcome
    deciding         from requests to decisions
    space_check      whether there is space for what was decided
    pipeline         group commit
    batch_txn        a batch as one transaction
    batch_recovery   a batch whose answer was lost, or that found etcd full
    producer_cursor  whether a batch without an answer landed
    audit_journal    what the pipeline knows of the audit trail
"""
