"""Who is asking, and whether he may. Pure over a view: the effect's transaction proves the answer.

Where to look:
    guard                  authenticates and authorizes
    record_reader          tokens and policies through a view
    authenticated_records  the MAC of every record
    token_format           how tokens look and are found
    groups                 whose a token is when something is counted
    policy_engine          which rule wins, what it allows
    policy_checks          rules refused when written
    policy_paths           what a rule can match
    narrowing              could fewer policies do more
    overlap                what two patterns share
"""
