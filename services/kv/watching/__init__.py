"""Watching secrets.

Where to look:
    watch_secrets     one stream
    feed              one watch of etcd for all of them
    changes           events of etcd as changes of secrets
    watcher_proofs    one proof for all streams of a token
    open_streams      how many streams at once
    follower_backlog  what waits for a stream that reads slowly
"""
