"""The life of a database credential's lease: pure; time and names are passed in.

    INTENT ──role made──▶ ACTIVE ──expired, or revoked──▶ PENDING ──role gone──▶ REVOKED ──24 h──▶ forgotten
       └──given up, or 15 s old──▶ ABANDONED ──role gone, 1 h──▶ forgotten          ▲
                                                    ACTIVE, its role has vanished ──┘

Rules:
* An intent is written before the role may exist, and ACTIVE before its password is given out. So each role in
  the database has a record here, and a record that is REVOKED has no role.
* Whoever ends a role first writes that here (`begun`): from then on the lease is not renewed, and if that
  process dies, the next attempt is due by itself. Attempts follow each other after 10 s, 20 s, 40 s … up to a
  cap, for ever.
* An intent that was given up may still become a role, if its issuer wakes up late: so the role is looked for
  again and again for an hour.
* An ACTIVE lease is shown as EXPIRED after its expiry, until somebody begins to end it.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from services.lease.revocation_backoff import Backoff
from strongbox.lease_records.index import KEPT_MS
from strongbox.storage.v1 import lease_records_pb2 as storage

Record = storage.GrantRecord
INTENT, ACTIVE = storage.GRANT_STATE_INTENT, storage.GRANT_STATE_ACTIVE
PENDING, ABANDONED = storage.GRANT_STATE_PENDING, storage.GRANT_STATE_ABANDONED
REVOKED = storage.GRANT_STATE_REVOKED
INTENT_MS = 15_000  # three times what a request may take
WATCHED_MS = 3_600_000  # how long an abandoned intent is looked after
LOOK_AGAIN_MS = 60_000
AT_ONCE = 0  # `next_ms` of what is due by any clock
MAX_ERROR = 200  # characters that are kept of a failure
_ID = re.compile(r"p[0-9a-f]{40}\Z")
_NAMES = {
    INTENT: "ISSUING",
    ACTIVE: "ACTIVE",
    PENDING: "REVOCATION_PENDING",
    ABANDONED: "ABANDONED",
    REVOKED: "REVOKED",
}


def fresh_id() -> str:
    """`p` and 40 hex digits, random."""
    return "p" + secrets.token_hex(20)


def is_grant_id(text: str) -> bool:
    """Whether `text` has the form of such a lease's id; anything else is never looked up."""
    return _ID.match(text) is not None


def username_of(lease_id: str) -> str:
    """The role's name: `sb_` and 16 hex digits. A hash, so that a name seen in the database tells no id."""
    return "sb_" + hashlib.sha256(b"strongbox role name v1\0" + lease_id.encode()).hexdigest()[:16]


def state_of(record: Record, now_ms: int) -> str:
    """The state as callers see it."""
    if record.state == ACTIVE and record.expires_ms <= now_ms:
        return "EXPIRED"
    return _NAMES[record.state]


def is_live(record: Record | None) -> bool:
    """Whether there is, or may be, a role to be ended: what quotas and connections count."""
    if record is None or record.state == REVOKED:
        return False
    return not (record.state == ABANDONED and record.seen_absent)


def due_ms(record: Record) -> int:
    """When the reaper looks at it."""
    if record.state == INTENT:
        return record.issued_ms + INTENT_MS
    if record.state == ACTIVE:
        return record.expires_ms
    if record.state == REVOKED:
        return record.revoked_ms + KEPT_MS
    return record.next_ms


def active(record: Record) -> Record:
    """The lease once its role is made, before the password is given out."""
    return _with(record, state=ACTIVE)


def renewed(record: Record, expires_ms: int) -> Record:
    """The lease with a later expiry; never an earlier one, never beyond `max_expires_ms`."""
    later = max(record.expires_ms, min(expires_ms, record.max_expires_ms))
    return _with(record, expires_ms=later)


def wanted(record: Record, now_ms: int) -> Record:
    """The lease when it has to end: the next attempt is due at once; what is abandoned or revoked stays so.

    `AT_ONCE` is due by any clock: the caller's may be fast, and the reaper goes by the cluster's time.
    """
    if record.state == REVOKED:
        return record
    if record.state == INTENT:
        return _with(record, state=ABANDONED, abandoned_ms=now_ms, next_ms=AT_ONCE)
    if record.state == ABANDONED:
        return record
    return _with(record, state=PENDING, next_ms=AT_ONCE)


def made_late(record: Record) -> Record:
    """An abandoned lease whose issuer says that there may be a role after all: it is due at once."""
    return _with(record, seen_absent=False, next_ms=AT_ONCE)


def begun(record: Record, now_ms: int, backoff: Backoff) -> Record:
    """An attempt to end it begins now; the next is due when this one fails, or its process dies.

    `now_ms`: the cluster's time, by which the next attempt is due.
    """
    ending = wanted(record, now_ms)
    attempts = record.attempts + 1
    pause = LOOK_AGAIN_MS if ending.seen_absent else backoff.after(attempts)
    return _with(ending, attempts=attempts, next_ms=now_ms + pause)


def failed(record: Record, why: str) -> Record:
    """The attempt that was begun has failed."""
    return _with(record, last_error=why[:MAX_ERROR])


def ended(record: Record, now_ms: int) -> Record | None:
    """The lease after its role was seen to be gone; `None`: nothing more is kept of it."""
    if record.state == ABANDONED:
        if record.abandoned_ms + WATCHED_MS <= now_ms:
            return None
        return _with(record, seen_absent=True, last_error="", next_ms=now_ms + LOOK_AGAIN_MS)
    return _with(record, state=REVOKED, revoked_ms=now_ms, last_error="", next_ms=0)


def _with(record: Record, **changes: object) -> Record:
    changed = Record()
    changed.CopyFrom(record)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
