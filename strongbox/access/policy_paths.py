"""The policy paths that exist: a rule must be able to match one. A test compares them with the protos.

`+` stands for one name, `*` for a path of any length. A path that ends in a slash is a listing's.
"""

from __future__ import annotations

from strongbox.access.pattern_overlap import overlap

PATHS = (
    "audit",
    "auth/approles/",
    "auth/approles/+",
    "auth/approles/+/secret-id",
    "auth/kubernetes/config",
    "auth/kubernetes/roles/",
    "auth/kubernetes/roles/+",
    "auth/tokens",
    "auth/tokens/+",
    "auth/users/",
    "auth/users/+",
    "dynamic-postgres/",
    "dynamic-postgres/+",
    "leases/",
    "leases/dynamic-postgres",
    "leases/dynamic-postgres/",
    "leases/dynamic-postgres/*",
    "leases/secret",
    "leases/secret/*",
    "secret/*",
    "sys/key-status",
    "sys/policies/",
    "sys/policies/+",
    "sys/postgres/connections/",
    "sys/postgres/connections/+",
    "sys/postgres/roles/",
    "sys/postgres/roles/+",
    "sys/rotate",
    "sys/seal",
)
# Paths of Vault's, and what they are called here.
_VAULT = {
    "auth/token": "auth/tokens, auth/tokens/self or auth/tokens/<accessor>",
    "auth/userpass": "auth/users/<name>; logging in needs no policy",
    "auth/approle": "auth/approles/<name> or auth/approles/<name>/secret-id; logging in needs no policy",
    "sys/policy": "sys/policies/<name>",
    "sys/policies/acl": "sys/policies/<name>",
    "sys/leases": "leases/<path>",
    "sys/audit": "audit",
    "database/creds": "dynamic-postgres/<role>",
    "database/roles": "sys/postgres/roles/<name>",
    "database/config": "sys/postgres/connections/<name>",
}


def why_never(pattern: str) -> str:
    """Why a sound pattern would never match any policy path of StrongBox; empty when it may."""
    if any(overlap(pattern, path) for path in PATHS):
        return ""
    for theirs, ours in _VAULT.items():
        if pattern == theirs or pattern.startswith(f"{theirs}/"):
            return f"there is no such path; what Vault calls {theirs} is here {ours}"
    family = pattern.partition("/")[0]
    within = [path for path in PATHS if path.partition("/")[0] == family]
    if not within:
        families = sorted({path.partition("/")[0] for path in PATHS})
        return f"no path begins so; paths begin with {', '.join(families)}"
    return f"there is no such path; the paths of {family} are {', '.join(within)}"
