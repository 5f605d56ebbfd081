"""The kv service: secrets under envelope encryption.

Where to look:
    watching        what changes, as it happens
    secrets         what each call decides
    versions        which versions there are; pure
    read_secret     a value, proved and audited
    batch_read      many in one call
    list_secrets    names below a directory
    data_keys       wrapped and unwrapped
    value_encoding  what a secret holds
    idempotency     the same request again
    purge_duty      destroyed versions leave history
    rewrap_heads    what kv keeps under key terms
    repository      where secrets stand in etcd
"""
