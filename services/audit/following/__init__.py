"""One replica of the chain: every entry of the outbox, in order, written durably once.

Where to look:
    replica             follows and writes
    run_while_unsealed  only while the chain has its key
    start_position      where a replica goes on after a start
    outbox_reader       records as entries; no I/O
    watch_batches       grouping a watch's batches into lots
    peer_history        older entries from peers
    position            how far a chain has come
"""
