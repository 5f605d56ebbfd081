"""Which nodes have confirmed a sealing, and which are still waited for.

A node confirms when everything of it that could answer with a secret says that it has no keys:
* its seal replica by its record; one that was killed while it held a key has confirmed nothing;
* each of the other services by its session key (`unsealed: false`), which it writes when it drops its keys.

A process whose session was there in the last seconds and is gone may be stopped, or cut off, with an answer
that it has not sent yet, so its node has not confirmed either. Sessions last a second at least, and the
revisions looked at are less than that apart: none is overlooked.

For a row that cannot be read, the node in its key has not confirmed; a row whose key names no node is
ignored.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from google.protobuf.message import DecodeError

from services.seal.custody.held_keys import PROOF_S
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

_APART_S = 0.9  # seconds between two revisions at most: a session lasts a second at least
_NOTED = 32
_NODES = (keyspace.NODES, keyspace.prefix_end(keyspace.NODES))


class Pair(Protocol):
    """A row of etcd."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...


class Confirmations(NamedTuple):
    """The nodes (in Kubernetes: pods) that hold nothing, and those that did not confirm it."""

    confirmed: tuple[str, ...]
    unconfirmed: tuple[str, ...]


class Revisions:
    """Which revision etcd was at in the last seconds; moments are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=_NOTED)

    def note(self, asked: float, revision: int) -> None:
        """A linearizable read that was asked for at `asked` was at `revision`."""
        if not self._seen or asked - self._seen[-1][0] >= _APART_S / 3:
            self._seen.append((asked, revision))

    def since(self, start: float, now: float) -> list[int] | None:
        """Revisions from `start` to `now`, at most `_APART_S` apart; None when not enough were noted."""
        moments = [moment for moment, _ in self._seen]
        before = [moment for moment in moments if moment <= start]
        if not before:
            return None
        wanted = [one for one in self._seen if one[0] >= before[-1]]
        ends = [*(moment for moment, _ in wanted[1:]), now]
        if any(end - moment > _APART_S for (moment, _), end in zip(wanted, ends, strict=True)):
            return None
        return [revision for _, revision in wanted]


async def processes_since(etcd: Etcd, revisions: Revisions, deadline: float) -> frozenset[str] | None:
    """The other services' processes that had a session in the last `PROOF_S` seconds, such as "kv/node-1".

    None: that is not known.
    """
    now = time.monotonic()
    several = revisions.since(now - PROOF_S, now)
    if several is None:
        return None
    looks = [txn.range_(*_NODES, keys_only=True, revision=revision) for revision in several]
    try:
        reply = await etcd.transact(txn.txn([], looks), deadline=deadline, idempotent=True)
    except EtcdError:  # compacted since, or away
        return None
    keys = {row.key for part in reply.responses for row in rows_of(part.response_range)}
    return frozenset(name for name in map(_name_of, keys) if _node_of(name) and not name.startswith("seal/"))


def confirmations(rows: Iterable[Pair], recent: Iterable[str]) -> Confirmations:
    """From the rows of seal's replicas and of the sessions; `recent`: the processes of `processes_since`."""
    silent: set[str] = set()
    nodes: set[str] = set()
    present: set[str] = set()
    for row in rows:
        if row.key.startswith(keyspace.SEAL_REPLICAS):
            node, holds = row.key.removeprefix(keyspace.SEAL_REPLICAS).decode("utf-8", "replace"), _holds(row)
        elif _node_of(name := _name_of(row.key)) and not name.startswith("seal/"):
            present.add(name)
            node, holds = _node_of(name), _may_answer(row.value)
        else:
            continue
        nodes.add(node)
        if holds:
            silent.add(node)
    gone = {_node_of(name) for name in set(recent) - present}
    silent |= gone
    return Confirmations(tuple(sorted((nodes | gone) - silent)), tuple(sorted(silent)))


def _holds(row: Pair) -> bool:
    try:
        return storage.SealReplica.FromString(row.value).holds
    except DecodeError:
        return True  # it may


def _may_answer(presence: bytes) -> bool:
    try:
        return json.loads(presence)["unsealed"] is not False
    except (ValueError, KeyError, TypeError, RecursionError):
        return True  # an older version, or not readable


def _name_of(key: bytes) -> str:
    return key.removeprefix(keyspace.NODES).decode("utf-8", "replace")


def _node_of(name: str) -> str:
    return name.partition("/")[2]
