"""What is answered and told.

Where to look:
    messages       lines, pages, proofs on the wire
    filter_checks  what can be asked at all
    health         health, presence, metrics
    stdout_copy    a copy of each entry for log collectors
"""
