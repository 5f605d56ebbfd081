"""A token that ends leases by their prefix is revoked meanwhile: from then on it ends nothing more.

One request ends so many leases that it takes several transactions. By etcd's own revisions each of them has
to lie before the revocation, whatever clients were told and when. The leases are somebody else's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from strongbox.access import token_format
from strongbox.lease_records import read_lease
from strongbox.storage.v1.auth_records_pb2 import AuthenticatedRecord
from strongbox.store import keyspace
from tests.robustness.door import Answer, Rest
from tests.robustness.history import History
from tests.robustness.traffic.asking import CANARY, Asked, Target, Worker
from tests.robustness.traffic.families import POLICY
from tests.support.etcd_door import EtcdDoor

ENDER = "robust-ender"  # the policy
PREFIX = "secret/robust/ended/"
_PAUSE = 3.0  # seconds
PATHS = [f"robust/ended/{number}" for number in range(90)]  # a transaction ends 30 leases
_AT_ONCE = 8


class Seen:
    """What was found."""

    def __init__(self) -> None:
        self.rounds = 0  # those whose request took effect at all
        self.violations: list[str] = []


class Ender(Worker):
    """Makes leases, has another token end them, and revokes that token on the way."""

    def __init__(self, target: Target, history: History, etcd: EtcdDoor, seen: Seen) -> None:
        super().__init__(target, history)
        self._etcd, self._seen = etcd, seen
        self._holder: tuple[str, str] | None = None  # always the same: its leases are as many as the paths

    def turn(self) -> None:
        """One round; whatever gets no answer ends it."""
        time.sleep(_PAUSE)
        holder = self._holder = self._holder or self._make(POLICY)
        ender = self._make(ENDER)
        if holder is None or ender is None or self._hold(holder[0]).status != 200:
            return None
        node = self.random.randrange(len(self.target.gateways))
        ending = threading.Thread(target=self._end, args=(ender[0], node), daemon=True)
        ending.start()
        time.sleep(self.random.uniform(0.005, 0.08))
        asked = Asked("made", "revoke ender", (), ("RevokeToken", f"auth/tokens/{ender[1]}"), changes=True)
        revoked = self.rest(asked, self.target.root, "DELETE", f"/v1/tokens/{ender[1]}")
        ending.join(10)
        if revoked.status == 200 and not ending.is_alive():
            with contextlib.suppress(grpc.RpcError):
                self._judge(holder[1], ender[0])
        return None

    def _make(self, policy: str) -> tuple[str, str] | None:
        asked = Asked("made", "create", (policy,), ("CreateToken", "auth/tokens"), changes=True)
        made = self.rest(asked, self.target.root, "POST", "/v1/tokens", {"policies": [policy], "ttl": "24h"})
        return (str(made.body["token"]), str(made.body["accessor"])) if made.status == 200 else None

    def _hold(self, token: str) -> Answer:
        asked = Asked("made", "hold", (), None)
        wanted = [{"path": path} for path in PATHS]
        return self.rest(asked, token, "POST", "/v1/secrets-batch", {"requests": wanted})

    def _end(self, token: str, node: int) -> None:
        asked = Asked("made", "end prefix", (), None, changes=True)
        own = Ending(self.target, self._history)
        own.rest(asked, token, "POST", "/v1/leases-revoke-prefix", {"prefix": PREFIX}, node)
        own.close()

    def _judge(self, holder: str, ender: str) -> None:
        marker = self._etcd.range(keyspace.REVOKED + token_format.digest(ender).encode()).kvs
        if not marker:
            return
        revoked_at = marker[0].create_revision
        start, end = keyspace.READ_LEASES, keyspace.prefix_end(keyspace.READ_LEASES)
        late = [
            row for row in self._etcd.range(start, end, min_mod_revision=revoked_at + 1).kvs
            if _is_ended(row.value, holder)
        ]  # fmt: skip
        self._seen.rounds += 1
        if late:
            self._seen.violations.append(
                f"leases: {len(late)} were ended by a token that was revoked at revision {revoked_at}, up to "
                f"revision {max(row.mod_revision for row in late)}"
            )


def prepare(gateway: str, token: str) -> None:
    """Write what is read later on, before there is any traffic. Raises RuntimeError."""

    def write(path: str) -> int:
        rest = Rest(gateway)
        try:
            return rest.call(token, "PUT", f"/v1/secrets/{path}", {"value": CANARY}).status
        finally:
            rest.close()

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        left = list(PATHS)
        for _ in range(5):
            left = [
                path for path, status in zip(left, threads.map(write, left), strict=True) if status != 200
            ]
            if not left:
                return
    raise RuntimeError(f"{len(left)} secrets cannot be written")


class Ending(Worker):
    """The other token's one request, over a connection of its own."""

    def turn(self) -> None:
        """Nothing by itself."""


def _is_ended(value: bytes, holder: str) -> bool:
    record = read_lease.Record.FromString(AuthenticatedRecord.FromString(value).body)
    return record.accessor == holder and bool(record.revoked_ms)
