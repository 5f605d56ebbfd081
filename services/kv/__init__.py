"""The kv service: secrets under envelope encryption.

Where to look:
    watching        streams of changes, as they happen
    secrets         what each call decides
    versions        the versions of a secret; pure
    read_secret     a value, proved and audited
    batch_read      many in one call
    list_secrets    names below a directory
    data_keys       data keys, wrapped and unwrapped by seal
    value_encoding  values as they are sealed
    idempotency     a repeated request gets the first answer
    purge_duty      destroyed versions leave etcd's history
    rewrap_heads    what the rewrap duty renews
    repository      secrets in etcd
"""
