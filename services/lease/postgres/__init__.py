"""Everything that speaks to PostgreSQL; no other code imports psycopg2.

Where to look:
    connection_pool  sessions and threads of one server
    session          statements under a deadline
    pins             what is set for every session of ours
    dsn              connection strings
    scram            passwords and verifiers
    login_roles      roles made and renewed
    catalog          which roles there are
    pieces           statements about single objects
    retry            trying again after a collision
    errors           what can go wrong
    ending           roles are dropped
"""
