"""The auth service: tokens, policies, logins, and the duty that tidies them.

Where to look:
    calls              the RPCs, by topic
    logins             users, AppRoles, Kubernetes, and lockout
    tokens             who may make which, how they end
    policies           named lists of rules
    policy_explain     why something is allowed
    policy_delegation  which policies may be given to whom
    tidy_decisions     what is due to be tidied
    tidy_duty          the duty that carries it out
    quotas             how much one caller keeps alive
    named_records      records that have a name
    list_filter        what a listing shows
    repository         tokens and policies in etcd
"""
