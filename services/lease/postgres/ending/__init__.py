"""Taking a role away, whatever it does against it and whatever it left behind.

Where to look:
    drop_roles             the whole way
    lock_out               no new logins, no sessions
    blocking_transactions  prepared or open ones in the way of its end
    owned_objects          what it owns
    privileges             what it granted and was granted
    role_standing          whose member it is
    inspection             what earlier versions left
"""
