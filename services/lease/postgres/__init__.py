"""What is said to PostgreSQL; nobody else imports psycopg2.

Where to look:
    connection_pool    sessions and threads of one server
    session            statements under a deadline
    pinned_settings    search_path, role and the like, set for every session of ours
    dsn                connection strings
    scram              passwords and verifiers
    login_roles        roles made and renewed
    catalog            which roles there are
    object_statements  statements about single objects
    retry_conflicts    what collided with somebody else's change is tried again
    errors             what can go wrong
    ending             roles are taken away
    answer_deadline    a server that never answers ends no thread of ours
"""
