"""Dropping a role, whatever it does to prevent that and whatever it leaves behind.

Where to look:
    drop_roles             all steps, in order
    lock_out               no new logins, no sessions
    blocking_transactions  what stands in the way
    owned_objects          what it owns
    privileges             what it granted and was granted
    role_standing          whose member it is
    inspection             what earlier versions left
"""
