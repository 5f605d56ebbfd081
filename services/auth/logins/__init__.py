"""The login methods. Each reads, does slow work outside of any transaction, and decides in one.

Where to look:
    login_attempt     the steps common to every method
    login_methods     user, AppRole, Kubernetes
    lockouts          refused logins, counted in etcd
    bound_cidrs       networks that logins may come from
    users             records of users
    password_hashing  Argon2id, few at a time
    approles          records of AppRoles
    secret_ids        the password of a machine
    kubernetes_roles  configuration and roles
    token_review      the API server says whose token it is
    reviewer_token    the token that Kubernetes gives the pod itself
"""
