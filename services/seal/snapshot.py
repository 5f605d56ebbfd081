"""The cluster as etcd shows it at one revision: who is alive, who holds a key, who does which duty.

One linearizable transaction reads it all, each part a key or a short range (a few nodes, a few duties). A
replica counts as a holder when it says so *under the session it has now*: what a process said before it was
killed does not count for the one started after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.seal.repository import SealState
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace, txn
from strongbox.store.client import KV, Etcd, rows_of

ANSWER_WITHIN = 0.5  # seconds


class Replica(NamedTuple):
    """One seal replica: `says_held` by its record alone, `holds` if its session confirms that."""

    node: str
    live: bool
    holds: bool
    says_held: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it; `config` and `state` are None before init."""

    revision: int  # of etcd, when it was taken
    config: storage.SealConfig | None
    state: SealState | None
    attempt: storage.UnsealAttempt
    replicas: tuple[Replica, ...]
    holders: Mapping[str, tuple[str, int]]  # by duty: node and term
    # What each process says of itself (strongbox.process.presence), by "<service>/<node>"
    sessions: Mapping[str, Mapping[str, Any]]

    @property
    def is_held(self) -> bool:
        """Whether some living replica holds a key."""
        return any(replica.holds for replica in self.replicas)

    @property
    def is_sealed(self) -> bool:
        """Sealed by decree, or because nobody is left who could open anything."""
        return self.state is None or self.state.is_sealed or not self.is_held

    def progress(self, service: str, duty: str) -> dict[str, int | None]:
        """By node, when its process last got on with a duty, in milliseconds.

        0: not since it started; None: it is of a version that does not tell.
        """
        processes = {
            key.removeprefix(f"{service}/"): told
            for key, told in self.sessions.items()
            if key.startswith(f"{service}/")
        }
        return {node: _progress(told.get("duties"), duty) for node, told in processes.items()}


async def take(etcd: Etcd, within: float = ANSWER_WITHIN) -> Snapshot:
    """Read it. Raises EtcdError."""
    wanted = [
        txn.range_(keyspace.SEAL_CONFIG),
        txn.range_(keyspace.SEAL_STATE),
        txn.range_(keyspace.SEAL_ATTEMPT),
        *(
            txn.range_(prefix, keyspace.prefix_end(prefix))
            for prefix in (keyspace.SEAL_REPLICAS, keyspace.NODES, keyspace.ELECTIONS)
        ),
    ]
    reply = await etcd.transact(txn.txn([], wanted), deadline=time.monotonic() + within, idempotent=True)
    config, state, attempt, replicas, nodes, offices = (rows_of(r.response_range) for r in reply.responses)
    sessions = {row.key.removeprefix(keyspace.NODES).decode(): row for row in nodes}
    return Snapshot(
        revision=reply.header.revision,
        config=storage.SealConfig.FromString(config[0].value) if config else None,
        state=SealState.parse(state[0].value if state else None),
        attempt=storage.UnsealAttempt.FromString(attempt[0].value if attempt else b""),
        replicas=_replicas(replicas, sessions),
        holders=_holders(offices),
        sessions={name: _parsed(row.value) for name, row in sessions.items()},
    )


def _parsed(presence: bytes) -> Mapping[str, Any]:
    """What a process says of itself; nothing when nobody can read it."""
    try:
        told = json.loads(presence)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _progress(duties: Any, duty: str) -> int | None:
    if not isinstance(duties, dict):
        return None
    told = duties.get(duty, 0)
    return told if isinstance(told, int) else 0


def _replicas(rows: tuple[KV, ...], sessions: Mapping[str, KV]) -> tuple[Replica, ...]:
    told = [storage.SealReplica.FromString(row.value) for row in rows]
    found = [_replica(one, sessions.get(f"seal/{one.node}")) for one in told]
    known = {one.node for one in told}
    # A replica that has not said anything yet (it has just started for the first time).
    silent = (key.removeprefix("seal/") for key in sessions if key.startswith("seal/"))
    found.extend(Replica(node, True, False, False) for node in silent if node not in known)
    return tuple(sorted(found))


def _replica(told: storage.SealReplica, session: KV | None) -> Replica:
    holds = told.holds and session is not None and session.lease == told.lease
    return Replica(told.node, session is not None, holds, told.holds)


def _holders(rows: tuple[KV, ...]) -> dict[str, tuple[str, int]]:
    """By duty: `election/<service>/<duty>` holds "<term> <node>", `…/term` the count of terms."""
    found: dict[str, tuple[str, int]] = {}
    for row in rows:
        _, duty, *rest = row.key.removeprefix(keyspace.ELECTIONS).decode().split("/")
        number, _, node = row.value.decode().partition(" ")
        if rest == ["term"]:
            found.setdefault(duty, ("", int(number)))
        elif not rest:
            found[duty] = (node, int(number))
    return found
