"""RPCs of LeaseService about connections and database roles.

Where to look:
    connections     connections
    database_roles  database roles and credentials
    list_names      names, a page at a time
"""
