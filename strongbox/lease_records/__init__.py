"""Records of leases, read or written by several services.

Where to look:
    read_lease  the lease of a secret that was read
    counters    how many are alive, and whose
    index       what is due when
"""
