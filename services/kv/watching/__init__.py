"""Watching secrets.

Where to look:
    watch_secrets     one stream
    feed              one watch of etcd for all of them
    changes           what an event tells
    watcher_proofs    who watches is proved once for several
    open_streams      how many at once, and for whom
    follower_backlog  what waits for a stream that reads slowly
"""
