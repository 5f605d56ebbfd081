"""Rotation: key terms come into use, are rewrapped to, and are retired.

Where to look:
    term_decisions   staged, in use, retired; functions of a view
    rotate           the work around it
    keyring_refresh  replicas hear of new terms
    terms_duty       what nobody asks for, one replica at a time
    wrap_counter     wraps are counted before they are used
"""
