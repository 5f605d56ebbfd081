"""Who is asking, and whether he may. Pure over a view: the effect's transaction proves the answer.

Where to look:
    guard                  authenticates and authorizes
    record_reader          tokens and policies through a view
    authenticated_records  the MAC of every record
    token_format           how tokens look and are found
    token_groups           whose a token is when something is counted
    policy_engine          which rule wins, what it allows
    policy_validation      why a policy is refused when it is written
    policy_paths           what a rule can match
    policy_narrowing       could fewer policies do more
    pattern_overlap        what two patterns share
    dead_rules             rules that another one of the same policy always beats
"""
