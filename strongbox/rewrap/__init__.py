"""After a rotation, each service brings what it keeps under the key term in use.

Where to look:
    rewrap_duty   the pass, as a duty
    rewrap_kinds  what it does to records of each kind; nothing is written there
"""
