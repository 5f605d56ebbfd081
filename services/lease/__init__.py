"""The lease service: leases, PostgreSQL credentials, and the duties that end them.

Where to look:
    calls               RPCs about connections and database roles
    duties              reaper and reconciler
    leases              seen, renewed, revoked
    credentials         issued
    connections         the servers that credentials are made on
    postgres            everything that speaks to PostgreSQL
    credential_lease    the states of a credential's lease; pure
    revocation_backoff  when the next attempt to take one away is made
    guarded_call        authenticate, decide, audit in one transaction
    metrics             how many live and wait
    repository          leases, connections and roles in etcd
"""
