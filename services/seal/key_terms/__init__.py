"""Rotation: key terms come into use, everything is rewrapped under them, and old ones are retired.

Where to look:
    term_decisions   staged, in use, retired; functions of a view
    rotate           staging a term and putting it in use; key status
    keyring_refresh  replicas hear of new terms
    terms_duty       upkeep of terms without a request, one replica at a time
    wrap_counter     wraps are counted before they are used
"""
