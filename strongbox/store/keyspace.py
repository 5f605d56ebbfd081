"""Every key StrongBox has in etcd; no other module spells one.

All keys are bytes under `/strongbox/`. A secret's path never holds a control character, so a zero byte ends
it unambiguously. Numbers that must sort are decimal with leading zeros.
"""

from __future__ import annotations

ROOT = b"/strongbox/"

CLUSTER_ID = ROOT + b"cluster/id"
CLUSTER_TIME = ROOT + b"cluster/time"
NODES = ROOT + b"cluster/nodes/"
ROOM = ROOT + b"cluster/room"
DEFRAGMENTING = ROOT + b"cluster/defragmenting"
ELECTIONS = ROOT + b"election/"

SEAL_CONFIG = ROOT + b"seal/config"
SEAL_STATE = ROOT + b"seal/state"
SEAL_ATTEMPT = ROOT + b"seal/attempt"
SEAL_KEYRING = ROOT + b"seal/keyring"
SEAL_RECORD_KEY = ROOT + b"seal/record-key"
SEAL_REPLICAS = ROOT + b"seal/replicas/"
SEAL_HANDED = ROOT + b"seal/handed/"
SEAL_ORDINALS = ROOT + b"seal/ordinals/"
SEAL_WRAPS = ROOT + b"seal/wraps/"
SEAL_CEREMONIES = ROOT + b"seal/ceremony/"

KV_HEADS = ROOT + b"kv/head/"
KV_ENVELOPES = ROOT + b"kv/envelope/"
KV_PURGES = ROOT + b"kv/purge/"

TOKENS = ROOT + b"auth/access/tokens/"
ACCESSORS = ROOT + b"auth/access/accessors/"
CHILDREN = ROOT + b"auth/access/children/"
POLICIES = ROOT + b"auth/access/policies/"
TOKENS_DUE = ROOT + b"auth/access/due/"
REVOKED = ROOT + b"auth/access/revoked/"

USERS = ROOT + b"auth/private/users/"
APPROLES = ROOT + b"auth/private/approles/"
ROLE_IDS = ROOT + b"auth/private/role-ids/"
SECRET_IDS = ROOT + b"auth/private/secret-ids/"
SECRET_IDS_BY_ROLE = ROOT + b"auth/private/secret-ids-by-role/"
SECRET_IDS_DUE = ROOT + b"auth/private/secret-ids-due/"
KUBERNETES = ROOT + b"auth/private/kubernetes/"
KUBERNETES_CONFIG = KUBERNETES + b"config"
KUBERNETES_ROLES = KUBERNETES + b"roles/"
LOGIN_FAILURES = ROOT + b"auth/private/failures/"
LOGIN_SOURCES = ROOT + b"auth/private/sources/"
AUTH_COUNTS = ROOT + b"auth/private/counts/"

READ_LEASES = ROOT + b"lease/reads/"
LEASES_DUE = ROOT + b"lease/due/"
LEASES_BY_PATH = ROOT + b"lease/by-path/"
LEASES_BY_ACCESSOR = ROOT + b"lease/by-accessor/"
LEASES_BY_CONNECTION = ROOT + b"lease/by-connection/"
LEASE_COUNTS = ROOT + b"lease/counts/"
LEASES_FOLLOWED = ROOT + b"lease/followed"
GRANTS = ROOT + b"lease/grants/"
POSTGRES_CONNECTIONS = ROOT + b"lease/postgres/connections/"
POSTGRES_ROLES = ROOT + b"lease/postgres/roles/"

OUTBOX = ROOT + b"audit/outbox/"
PRODUCERS = ROOT + b"audit/producers/"
AUDIT_KEY = ROOT + b"audit/key"
AUDIT_KEYS = ROOT + b"audit/keys/"
AUDIT_SIGNING_KEY = ROOT + b"audit/signing-key"
AUDIT_CHECKPOINT = ROOT + b"audit/checkpoint"
AUDIT_MARK = ROOT + b"audit/mark"
AUDIT_REPLICAS = ROOT + b"audit/replicas/"
AUDIT_SLOTS = ROOT + b"audit/slots/"
AUDIT_BACKLOG = ROOT + b"audit/backlog"
AUDIT_ARCHIVE = ROOT + b"audit/archive"
AUDIT_TRIMMED = ROOT + b"audit/trimmed/"

# Prefixes whose values are authenticated records, by owner: what a new record key has to re-MAC.
AUTHENTICATED: dict[str, tuple[bytes, ...]] = {
    "kv": (KV_HEADS,),
    "auth": (TOKENS, POLICIES, USERS, APPROLES, SECRET_IDS, KUBERNETES_CONFIG, KUBERNETES_ROLES),
    "lease": (READ_LEASES, GRANTS, POSTGRES_CONNECTIONS, POSTGRES_ROLES),
}


# Prefixes whose values are bare envelopes, by the purpose their data keys are wrapped for.
ENVELOPES: dict[str, tuple[bytes, ...]] = {
    "kv": (KV_ENVELOPES,),
    "audit": (AUDIT_KEY,),  # and `audit/keys/`, which begins with the same letters
}

# Every stored message that holds an envelope, and the service whose rewrap duty visits it. What is not
# rewrapped is lost when its term is retired, so a test finds messages that are missing here.
HOLDERS: dict[str, str] = {
    "KubernetesConfigRecord": "auth",
    "ConnectionRecord": "lease",
    "SigningKey": "audit",
}

# How far each service has brought what it keeps under the key term in use; read by seal.
REWRAPS: dict[str, bytes] = {
    "kv": ROOT + b"kv/rewrap",
    "auth": ROOT + b"auth/access/rewrap",
    "lease": ROOT + b"lease/rewrap",
    "audit": ROOT + b"audit/rewrap",
}


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix` (none of ours ends in 0xff)."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def node(service: str, node_id: str) -> bytes:
    """The session key of one replica of a service; deleted by etcd when its session ends."""
    return NODES + f"{service}/{node_id}".encode()


def seal_replica(node_id: str) -> bytes:
    """What a seal replica says of itself; stays when the replica is gone."""
    return SEAL_REPLICAS + node_id.encode()


def ordinal(number: str) -> bytes:
    """The node that a seal certificate's ordinal belongs to."""
    return SEAL_ORDINALS + number.encode()


def wraps(term: int) -> bytes:
    """How many wraps are reserved under a key term; below it, by node, how many of these are unused."""
    return SEAL_WRAPS + b"%010d" % term


def ceremony(kind: str) -> bytes:
    """A rekey or generate-root under way."""
    return SEAL_CEREMONIES + kind.encode()


def handed(ordinal: str) -> bytes:
    """When the root key was last given to this ordinal, in milliseconds."""
    return SEAL_HANDED + ordinal.encode()


def election(service: str, duty: str) -> bytes:
    """Whoever put this key holds the duty; its mod revision is the fence."""
    return ELECTIONS + f"{service}/{duty}".encode()


def head(path: str) -> bytes:
    """A secret's head: all about it but the values."""
    return KV_HEADS + path.encode()


def envelope(path: str, version: int) -> bytes:
    """One version's envelope."""
    return KV_ENVELOPES + path.encode() + b"\0" + b"%010d" % version


def token(digest: str) -> bytes:
    """A token's record, by the hex digest of the token."""
    return TOKENS + digest.encode()


def accessor(name: str) -> bytes:
    """The token's digest, by its accessor."""
    return ACCESSORS + name.encode()


def child(parent: str, name: str) -> bytes:
    """An empty key for each child (accessor) of a token (accessor)."""
    return CHILDREN + f"{parent}/{name}".encode()


def policy(folded: str) -> bytes:
    """A policy's record, by its folded name."""
    return POLICIES + folded.encode()


def read_lease(lease_id: str) -> bytes:
    """A read lease's record; its id is computed from accessor and path."""
    return READ_LEASES + lease_id.encode()


def grant(lease_id: str) -> bytes:
    """The lease of a database credential."""
    return GRANTS + lease_id.encode()


def postgres_connection(folded: str) -> bytes:
    """A connection to a database server, by its folded name."""
    return POSTGRES_CONNECTIONS + folded.encode()


def postgres_role(folded: str) -> bytes:
    """A database role, by its folded name."""
    return POSTGRES_ROLES + folded.encode()


def cursor(service: str, incarnation: str) -> bytes:
    """A producer's cursor: value `<batch>:<attempt nonce>`, moved by every batch."""
    return PRODUCERS + f"{service}/{incarnation}".encode()


def audit_key(term: int) -> bytes:
    """An HMAC key of the audit chain, enveloped; the first one is made at init."""
    return AUDIT_KEY if term == 1 else AUDIT_KEYS + b"%08d" % term


def outbox_batch(service: str, incarnation: str, batch: int) -> bytes:
    """The prefix of one batch's records."""
    return OUTBOX + f"{service}/{incarnation}/{batch:016d}/".encode()


def outbox_record(service: str, incarnation: str, batch: int, part: int) -> bytes:
    """The packed audit record of one part of a batch."""
    return outbox_batch(service, incarnation, batch) + b"%04d" % part
