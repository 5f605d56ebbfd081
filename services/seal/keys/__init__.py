"""The root key and what is derived from it. No I/O; used by all of seal.

Where to look:
    root_key  sealed by the unseal key, recognised by its check value
    keyring   a KEK for each key term, and what comes from it
"""
