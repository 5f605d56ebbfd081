"""Rekey and generate-root: what people with key shares do together while the cluster is unsealed.

Where to look:
    ceremony_decisions  begun, driven by a nonce, completed by a threshold; functions of a view
    ceremony_exchange   shares exchanged among the replicas and put together
    ceremony_results    new key shares, or a root token
"""
