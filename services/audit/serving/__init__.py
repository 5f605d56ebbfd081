"""What clients and operators are given.

Where to look:
    messages       lines, pages, proofs on the wire
    filter_checks  filters that can never match are refused
    health         health, presence, metrics
    stdout_copy    a copy of each entry for log collectors
"""
