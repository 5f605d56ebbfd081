"""The audit duty, which one replica does for all under a fence; and each replica's retention.

Where to look:
    audit_duty        the cluster's time and trimming the outbox, every second
    cluster_time      how far one put may move the cluster's time
    producer_closing  producers that are gone
    outbox_backlog    how much waits in the outbox
    retention         what is archived, and the warning before the disk is full
"""
