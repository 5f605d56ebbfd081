"""What is said to PostgreSQL; nobody else imports psycopg2.

Where to look:
    connection_pool  sessions and threads of one server
    session          statements under a deadline
    pins             what is set for every session of ours
    dsn              connection strings
    scram            passwords and verifiers
    login_roles      roles made and renewed
    catalog          which roles there are
    pieces           lists that are worked off in parts
    retry            what collided with others
    errors           what can go wrong
    ending           roles are taken away
"""
