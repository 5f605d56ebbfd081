"""Background duties.

Where to look:
    election  one holder, proved by a fence
    session   a process's presence in etcd
"""
