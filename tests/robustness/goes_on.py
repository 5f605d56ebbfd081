"""Everything goes on: after the last fault every duty makes progress, with nobody's help.

Something is asked of each duty, and its *effect* is looked for where it has to be seen (PostgreSQL, etcd);
who is said to hold the duty counts for nothing. Each effect is owed from some moment on, and then has ten
seconds:

    a credential's time is over      its role is gone                               reaper
    a token is revoked               the role of its credential is gone             follower, reaper
    its parent is revoked            the role of a child's credential is gone       tidy, follower, reaper
    PostgreSQL is there again        a pending revocation is REVOKED                reaper
    a role has no lease              it is gone                                     reconciler
    an operation is recorded         its record is no longer in the outbox          audit
    a term is in use                 each service has begun to rewrap               rewrap, of four services

Longer, because the docs promise no more; runs with a planted bug do not ask for these:

    a token's minute is over         its record is gone within ten seconds of that  tidy
    a checkpoint                     every ten seconds, so within twenty            audit
    a version is destroyed           `purged_at` within a minute                    purge
    a term is in use                 the old one is retired: everything is looked   terms
                                     at twice, ten seconds apart
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import psycopg2

from services.lease import credential_lease
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.storage.v1.auth_records_pb2 import AuthenticatedRecord
from strongbox.store import keyspace
from tests.robustness.postgres import BRIEF_S, DATABASE_ROLES
from tests.robustness.stage import NODES, Stage
from tests.support.clients import Patience, Refused, RestClient

SOON = 10.0  # seconds
_SIGNED_WITHIN = 20.0
_PURGED_WITHIN = 60.0
_RETIRED_WITHIN = 90.0  # as many records as a run leaves take some 20 s, then 10 s until the second look
_LOOK_EVERY = 0.25
NEVER = float("inf")
_BRIEF, _LONG = DATABASE_ROLES
_POLICY = "goes-on"


@dataclass
class Owed:
    """An effect that has to be seen within `limit` seconds of `since` (monotonic); `seen` looks for it."""

    what: str
    seen: Callable[[], bool]
    limit: float = SOON
    since: float = field(default_factory=time.monotonic)
    took: float = -1.0  # seconds, once it was seen; below 0: not yet


class Progress:
    """Asks for the effects, then waits for all of them together."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._etcd, self._server = stage, stage.etcd, stage.postgres
        self.owed: list[Owed] = []
        self._soon_only = stage.is_planted
        self.orphan = ""  # the role without a lease that the reconciler is to find

    def ask(self) -> None:
        """Ask everything of the duties. Raises Refused when the cluster does not serve."""
        with self._stage.cluster.rest(self._stage.cluster.root_token, NODES[0], Patience()) as root:
            self._ask_rewraps(root)
            if not self._soon_only:
                self._ask_purge(root)
                self._ask_tidying(root)
            self._ask_pending(root)
            self._ask_brief(root)
            self._ask_followers(root)
            self._ask_orphan()
            self._ask_audit(root)

    def lines(self) -> Iterator[str]:
        """What was seen, and when."""
        for one in self.owed:
            yield f"  {one.what:<70}{one.took:7.1f} s (at most {one.limit:.0f})"

    def _ask_rewraps(self, root: RestClient) -> None:
        term = int(root.call("POST", "/v1/sys/rotate", {})["term"])
        for service, key in keyspace.REWRAPS.items():
            self._owe(
                f"{service} begins to rewrap under a new term", lambda key=key: self._rewraps(key) >= term
            )
        if not self._soon_only:
            self._owe("the old term is retired", lambda: self._oldest_term() >= term, _RETIRED_WITHIN)

    def _oldest_term(self) -> int:
        (row,) = self._etcd.range(keyspace.SEAL_KEYRING).kvs
        return min(one.term for one in storage.Keyring.FromString(row.value).terms)

    def _rewraps(self, key: bytes) -> int:
        rows = self._etcd.range(key).kvs
        return int(storage.RewrapProgress.FromString(rows[0].value).term) if rows else 0

    def _ask_purge(self, root: RestClient) -> None:
        path = f"robust/goes-on-{secrets.token_hex(4)}"
        root.call("PUT", f"/v1/secrets/{path}", {"value": "to be destroyed"})
        root.call("POST", f"/v1/secrets-destroy/{path}", {"versions": [1]})

        def purged() -> bool:
            with self._stage.cluster.rest(self._stage.cluster.root_token, NODES[0]) as rest:
                (version,) = rest.call("GET", f"/v1/secrets-metadata/{path}")["versions"]
                return bool(version.get("purged_at"))

        self._owe("a destroyed version is purged", purged, _PURGED_WITHIN)

    def _ask_tidying(self, root: RestClient) -> None:
        """Expired tokens are looked for minute by minute: this one ends just before one is over."""
        left = 60 - time.time() % 60
        ttl = max(1, int(left) - 1)
        made = root.call("POST", "/v1/tokens", {"policies": ["default"], "ttl": f"{ttl}s"})
        key = keyspace.accessor(str(made["accessor"]))
        minute = left if left > ttl + 0.5 else left + 60
        self._owe("an expired token's record is gone", lambda: not self._holds(key), later=minute)

    def _ask_pending(self, root: RestClient) -> None:
        """The last of all faults: PostgreSQL lets nobody in while a lease is to end."""
        lease = root.call("GET", f"/v1/dynamic-postgres/{_LONG}")["lease"]["id"]
        self._server.refuse()
        try:
            state = root.call("POST", f"/v1/leases/{lease}/revoke", {})["state"]
        finally:
            self._server.admit()
        self._owe(
            f"a revocation that was {state} is REVOKED",
            lambda: self._state(lease) == credential_lease.REVOKED,
        )

    def _state(self, lease: str) -> object:
        (row,) = self._etcd.range(keyspace.grant(lease)).kvs
        return credential_lease.Record.FromString(AuthenticatedRecord.FromString(row.value).body).state

    def _ask_brief(self, root: RestClient) -> None:
        name = root.call("GET", f"/v1/dynamic-postgres/{_BRIEF}")["username"]
        self._owe("a credential that is due is gone", lambda: not self._lives(name), later=BRIEF_S)

    def _ask_followers(self, root: RestClient) -> None:
        rules = [
            {"path": f"dynamic-postgres/{_LONG}", "capabilities": ["read"]},
            {"path": "auth/tokens", "capabilities": ["write"]},
        ]
        root.call("PUT", f"/v1/policies/{_POLICY}", {"rules": rules})
        parent = root.call("POST", "/v1/tokens", {"policies": [_POLICY], "ttl": "1h"})
        with self._stage.cluster.rest(str(parent["token"]), NODES[1], Patience()) as rest:
            own = rest.call("GET", f"/v1/dynamic-postgres/{_LONG}")["username"]
            child = rest.call("POST", "/v1/tokens", {"policies": [_POLICY], "ttl": "1h"})
        with self._stage.cluster.rest(str(child["token"]), NODES[2], Patience()) as rest:
            of_child = rest.call("GET", f"/v1/dynamic-postgres/{_LONG}")["username"]
        root.call("DELETE", f"/v1/tokens/{parent['accessor']}")
        self._owe("a revoked token's credential is gone", lambda: not self._lives(own))
        self._owe("the credential of a revoked token's child is gone", lambda: not self._lives(of_child))

    def _ask_orphan(self) -> None:
        lease = "p" + secrets.token_hex(20)
        self.orphan = credential_lease.username_of(lease)
        (cluster,) = self._etcd.range(keyspace.CLUSTER_ID).kvs
        self._server.make_orphan(self.orphan, f"strongbox:{cluster.value.decode()}:{lease}")
        self._owe("a role without a lease is gone", lambda: not self._lives(self.orphan))

    def _ask_audit(self, root: RestClient) -> None:
        root.call("GET", "/v1/tokens/self")
        now = self._etcd.revision()
        end = keyspace.prefix_end(keyspace.OUTBOX)

        def trimmed() -> bool:
            return not self._etcd.range(
                keyspace.OUTBOX, end, limit=1, keys_only=True, max_mod_revision=now
            ).kvs

        def signed() -> bool:
            return any(row.mod_revision > now for row in self._etcd.range(keyspace.AUDIT_CHECKPOINT).kvs)

        self._owe("the outbox is trimmed", trimmed)
        self._owe("a checkpoint is signed", signed, _SIGNED_WITHIN)

    def _owe(self, what: str, seen: Callable[[], bool], limit: float = SOON, later: float = 0.0) -> None:
        self.owed.append(Owed(what, seen, limit, time.monotonic() + later))

    def _holds(self, key: bytes) -> bool:
        return bool(self._etcd.range(key).kvs)

    def _lives(self, role: str) -> bool:
        return bool(self._server.ask("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", role))


def wait(owed: Sequence[Owed], slack: Callable[[], float]) -> Iterator[str]:
    """Until every effect is seen or late; violations. `slack`: by how much times may be longer now."""
    while left := [one for one in owed if one.took < 0]:
        for one in left:
            if _looks(one.seen):
                one.took = max(0.0, time.monotonic() - one.since)
            elif time.monotonic() > one.since + one.limit * slack():
                one.took = NEVER
        time.sleep(_LOOK_EVERY)
    yield from (f"goes on: {one.what}: not within {one.limit:.0f} s" for one in owed if one.took == NEVER)


def _looks(seen: Callable[[], bool]) -> bool:
    """Whether it is seen; who is not answered has not seen it."""
    with contextlib.suppress(grpc.RpcError, psycopg2.Error, Refused):
        return seen()
    return False


def judge(stage: Stage, slack: Callable[[], float], say: Callable[[str], Any]) -> tuple[str, list[str]]:
    """The role that the reconciler was given to find, and the violations."""
    progress = Progress(stage)
    progress.ask()
    violations = list(wait(progress.owed, slack))
    say("everything goes on, with nobody's help:")
    for line in progress.lines():
        say(line)
    return progress.orphan, violations
