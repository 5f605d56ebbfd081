"""The cluster as etcd shows it at one revision: who is alive, who holds a key, who does which duty.

One linearizable transaction reads it all, each part a key or a short range (a few nodes, a few duties). A
replica counts as a holder when its record says so *under the session it has now*: what a process wrote before
it was killed does not count for the one started after it.

A row that cannot be read, or that stands at another's key, is left out and logged once: it must not hide what
the other rows say. Seal's own config and state are single rows, and must be readable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import structlog
from google.protobuf.message import DecodeError

from services.seal.repository import SealState
from strongbox.process.presence import told_in
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of

T = TypeVar("T")
ANSWER_WITHIN = 0.5  # seconds
_MOST_TOLD = 1000
_MOST_TERMS = 2**31 - 1  # the largest that an answer can hold
_MOST_MS = 253_402_300_800_000  # the end of the year 9999, and of what a timestamp can say
_log = structlog.get_logger(__name__)
_told: set[bytes] = set()  # keys of the rows that were logged


class Replica(NamedTuple):
    """One seal replica: `says_held` by its record alone, `holds` if its session confirms that."""

    node: str
    live: bool
    holds: bool
    says_held: bool
    address: str = ""  # where it can be called


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What etcd showed at one revision; `config` and `state` are None before init."""

    revision: int  # of etcd, when it was taken
    config: storage.SealConfig | None
    state: SealState | None
    attempt: storage.UnsealAttempt
    replicas: tuple[Replica, ...]
    holders: Mapping[str, tuple[str, int]]  # by duty: node and term
    # What each process says of itself (strongbox.process.presence), by "<service>/<node>"
    sessions: Mapping[str, Mapping[str, Any]]
    began: float = 0.0  # when it was asked for, in monotonic seconds

    @property
    def is_held(self) -> bool:
        """Whether some living replica holds a key."""
        return any(replica.holds for replica in self.replicas)

    @property
    def is_sealed(self) -> bool:
        """Whether `seal/state` says sealed, or no living replica holds a key."""
        return self.state is None or self.state.is_sealed or not self.is_held

    def progress(self, service: str, duty: str) -> dict[str, int | None]:
        """By node, when its process last made progress with a duty, in milliseconds.

        0: not since it started; None: its version does not report that.
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
    began = time.monotonic()
    reply = await etcd.transact(txn.txn([], wanted), deadline=began + within, idempotent=True)
    config, state, attempt, replicas, nodes, offices = (rows_of(r.response_range) for r in reply.responses)
    sessions = dict(readable(nodes, _named))
    return Snapshot(
        revision=reply.header.revision,
        config=storage.SealConfig.FromString(config[0].value) if config else None,
        state=SealState.parse(state[0].value if state else None),
        attempt=storage.UnsealAttempt.FromString(attempt[0].value if attempt else b""),
        replicas=_replicas(replicas, sessions),
        holders=_holders(offices),
        sessions={name: told_in(row.value) for name, row in sessions.items()},
        began=began,
    )


def readable(rows: Iterable[KV], read: Callable[[KV], T]) -> Iterator[T]:
    """`read(row)` for each row that can be read; others are logged once and left out."""
    for row in rows:
        try:
            found = read(row)
        except (DecodeError, ValueError):
            if row.key not in _told and len(_told) < _MOST_TOLD:
                _told.add(row.key)
                _log.error(
                    "a row that nobody can read is passed over", key=row.key.decode("ascii", "replace")
                )
            continue
        yield found


def _named(row: KV) -> tuple[str, KV]:
    return row.key.removeprefix(keyspace.NODES).decode(), row


def _progress(duties: Any, duty: str) -> int | None:
    if not isinstance(duties, dict):
        return None
    told = duties.get(duty, 0)
    return told if isinstance(told, int) and 0 <= told < _MOST_MS else 0


def _replicas(rows: tuple[KV, ...], sessions: Mapping[str, KV]) -> tuple[Replica, ...]:
    told = list(readable(rows, _told_by))
    found = [_replica(one, sessions.get(f"seal/{one.node}")) for one in told]
    known = {one.node for one in told}
    # A replica that has not said anything yet (it has just started for the first time).
    silent = (key.removeprefix("seal/") for key in sessions if key.startswith("seal/"))
    found.extend(Replica(node, True, False, False) for node in silent if node not in known)
    return tuple(sorted(found))


def _told_by(row: KV) -> storage.SealReplica:
    told = storage.SealReplica.FromString(row.value)
    if keyspace.seal_replica(told.node) != row.key:
        raise ValueError("it stands at another's key")
    return told


def _replica(told: storage.SealReplica, session: KV | None) -> Replica:
    holds = told.holds and session is not None and session.lease == told.lease
    return Replica(told.node, session is not None, holds, told.holds, told.address)


def _holders(rows: tuple[KV, ...]) -> dict[str, tuple[str, int]]:
    """By duty: `election/<service>/<duty>` holds "<term> <node>", `…/term` the count of terms."""
    found: dict[str, tuple[str, int]] = {}
    for duty, rest, number, node in readable(rows, _office):
        if rest == ["term"]:
            found.setdefault(duty, ("", number))
        elif not rest:
            found[duty] = (node, number)
    return found


def _office(row: KV) -> tuple[str, list[str], int, str]:
    _, duty, *rest = row.key.removeprefix(keyspace.ELECTIONS).decode().split("/")
    number, _, node = row.value.decode().partition(" ")
    return duty, rest, _count(number), node


def _count(number: str) -> int:
    count = int(number)
    if not 0 <= count <= _MOST_TERMS:
        raise ValueError("no count of terms")
    return count
