"""The life of a lease.

Where to look:
    lease_decisions  who may see, renew and end which; functions of a view
    renew            PostgreSQL first, then the lease
    revoke           ended in PostgreSQL, then REVOKED
"""
