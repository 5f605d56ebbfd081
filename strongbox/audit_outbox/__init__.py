"""The services' side of the audit log: the transaction of an effect puts its audit record too,
which waits in etcd until the audit replicas have chained it.

Where to look:
    outbox          how records are packed
    outbox_limit    past it audited requests are refused
    refusal_counts  refusals without a valid token
"""
