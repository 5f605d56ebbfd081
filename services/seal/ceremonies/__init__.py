"""Rekey and generate-root: what people with key shares do together while the cluster is unsealed.

Where to look:
    ceremony_decisions  begun, driven by a nonce, completed by a threshold; functions of a view
    ceremony_exchange   the work around it: shares exchanged among the replicas
    ceremony_results    new key shares, or a root token
"""
