"""Everything that speaks to PostgreSQL; no other code imports psycopg2.

Where to look:
    connection_pool    sessions and threads of one server
    session            statements under a deadline
    pinned_settings    what is set for every session of ours
    dsn                connection strings
    scram              passwords and verifiers
    login_roles        roles made and renewed
    catalog            which roles there are
    object_statements  statements about single objects
    retry_conflicts    trying again after a collision
    errors             what can go wrong
    ending             roles are dropped
    answer_deadline    a server that never answers ends no thread of ours
"""
