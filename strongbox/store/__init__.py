"""etcd, and how requests are decided over it.

Where to look:
    decisions         view, cache, group commit
    duties            one replica at a time, under a fence
    space             how full etcd is
    etcd              the client
    keyspace          every key there is
    paging            pages of a listing
    envelope_records  envelopes as records
"""
