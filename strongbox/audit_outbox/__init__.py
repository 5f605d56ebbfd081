"""How an audit record is put: by the transaction of its effect, into an outbox, where it waits for the chain.

Where to look:
    outbox          how records are packed
    outbox_limit    past it audited requests are refused
    refusal_counts  refusals without a valid token
"""
