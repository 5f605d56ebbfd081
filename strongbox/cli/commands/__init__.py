"""The commands: what each takes, asks the cluster for, and prints. Only `strongbox.cli.app` enters.

Each file has an `app` (login: a function), which is hung into the tree there. gRPC is imported inside
the functions, so that `--help` stays quick.

Where to look:
    operator                           init, unseal, seal, rotate, rekey, generate-root, status
    kv                                 secrets and their versions
    token, policy                      who may do what
    user, approle, kubernetes, login   who logs in, and logging in
    lease, postgres                    leases; database roles and their credentials
    audit                              the log, its proofs and checkpoints
"""
