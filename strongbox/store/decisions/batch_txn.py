"""A batch as one etcd transaction: built from decisions, read back into what became of each. No I/O.

    outer    compare the producer's cursor → move it (a plain put: nested ones escape the space quota), then
    part 0   the shared part: the compares of all decisions that change nothing, one packed audit record
    part n   one part for each decision that changes something or fetches, or whose compares failed before

A failed compare fails its own part only; the part's other branch returns what its keys hold now (of large
values only whether they changed: a decision that needs one reads it again).
The last operation of each batch reads how full etcd is (`admission`).
Overlap rule: etcd silently loses a put that a later sibling deletes, and refuses a key put twice. So a
decision joins a batch only if no write of either meets a read, write or fetch of the other (`Claims`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft, Journal, size_of
from strongbox.store.decisions.cache import ABSENT, Fact
from strongbox.store.decisions.view import Fetch, Footprint, Row
from strongbox.store.etcd import txn

MAX_OPS = 900  # of etcd's --max-txn-ops 1024, which counts outer and nested operations together
MAX_BYTES = 1 << 20  # below etcd's request limit; a single decision may be larger and is then alone


@dataclass(slots=True)
class Decided:
    """One decision of a batch: its footprint and its audit record, or records."""

    footprint: Footprint
    draft: Draft | None
    alone: bool = False
    others: Sequence[Draft] = ()

    @property
    def drafts(self) -> Sequence[Draft]:
        """All its audit records."""
        return self.others if self.draft is None else [self.draft, *self.others]

    @property
    def own_part(self) -> bool:
        """Whether it needs a part of its own instead of the shared one."""
        return self.alone or self.footprint.changes


@dataclass(slots=True)
class Part:
    """Decisions that stand or fall together: indexes into the batch.

    `size`: bytes of their audit record, known when the transaction is built.
    """

    members: list[int]
    record: bool
    size: int = 0


@dataclass(slots=True)
class PartAnswer:
    """What etcd said of one part: rows of its fetches, or what its keys hold instead."""

    succeeded: bool
    rows: tuple[Row, ...] = ()
    found: dict[bytes, Fact] = field(default_factory=dict)
    changed: frozenset[bytes] = frozenset()  # large values that are not those compared; not sent back


class Claims:
    """The keys a batch touches so far; `admits` says whether one more decision may join."""

    def __init__(self) -> None:
        self._reads: set[bytes] = set()
        self._writes: set[bytes] = set()
        self._fetches: list[Fetch] = []
        self._versions: dict[bytes, int] = {}

    def admits(self, wanted: Footprint) -> bool:
        """No write of either meets a read, write or fetch of the other, and both saw the same facts."""
        writes = wanted.puts.keys() | wanted.deletes
        if writes & self._writes or writes & self._reads or self._writes & wanted.reads.keys():
            return False
        if any(_inside(fetch, key) for fetch in self._fetches for key in writes):
            return False
        if any(_inside(fetch, key) for fetch in wanted.fetches for key in self._writes):
            return False
        return all(self._versions.get(key, seen) == seen for key, seen in wanted.reads.items())

    def add(self, wanted: Footprint) -> None:
        """Claim a decision's keys; also for one that has to wait, so that it is not overtaken for ever."""
        self._reads |= wanted.reads.keys()
        self._writes |= wanted.puts.keys() | wanted.deletes
        self._fetches.extend(wanted.fetches)
        self._versions.update(wanted.reads)


def _inside(fetch: Fetch, key: bytes) -> bool:
    return fetch.start <= key < fetch.end


def cost_of(decided: Decided) -> tuple[int, int]:
    """Operations and bytes of a decision, rounded up; both branches counted."""
    print_ = decided.footprint
    operations = len(print_.puts) + len(print_.deletes) + len(print_.fetches) + len(print_.reads) + 3
    size = sum(len(k) + len(v) for k, v in print_.puts.items()) + 2 * sum(map(len, print_.reads)) + 512
    return operations, size + size_of(decided.drafts)


def parts_of(batch: Sequence[Decided]) -> list[Part]:
    """The shared part first, if anything shares; then one part each."""
    shared = [i for i, decided in enumerate(batch) if not decided.own_part]
    own = [Part([i], bool(decided.drafts)) for i, decided in enumerate(batch) if decided.own_part]
    if not shared:
        return own
    return [Part(shared, any(batch[i].drafts for i in shared)), *own]


def build(
    batch: Sequence[Decided],
    parts: Sequence[Part],
    journal: Journal,
    number: int,
    nonce: str,
    cursor: int,
    *,
    past_quota: bool = False,
) -> txn.TxnRequest:
    """The transaction of a batch; `cursor` is the revision at which the producer's cursor was last moved.

    `past_quota`: etcd takes it although its space is used up (it counts no put that is nested).
    """
    moved = txn.put(journal.cursor_key, b"%d:%s" % (number, nonce.encode()))
    operations = [txn.nested([], [moved]) if past_quota else moved]
    for index, part in enumerate(parts):
        members = [batch[i] for i in part.members]
        drafts = [draft for member in members for draft in member.drafts]
        record = journal.pack(drafts) if drafts else b""
        part.size = len(record)
        put = [txn.put(journal.record_key(number, index), record)] if drafts else []
        operations.append(_part(members, put))
    operations.append(txn.range_(keyspace.ROOM))
    return txn.txn(
        [txn.mod_is(journal.cursor_key, cursor)],
        operations,
        [txn.range_(journal.cursor_key)],
    )


def _part(members: Sequence[Decided], record: list[txn.RequestOp]) -> txn.RequestOp:
    reads: dict[bytes, int] = {}
    large: set[bytes] = set()
    before: int | None = None
    effects: list[txn.RequestOp] = []
    for member in members:
        reads.update(member.footprint.reads)
        large |= member.footprint.large
        limit = member.footprint.before_ms
        before = limit if before is None else before if limit is None else min(before, limit)
        effects.extend(_effects(member.footprint))
    compares = [txn.mod_is(key, revision) for key, revision in reads.items()]
    wanted = list(reads)
    if before is not None:
        compares.append(txn.value_less(keyspace.CLUSTER_TIME, b"%020d" % before))
        wanted.append(keyspace.CLUSTER_TIME)
    return txn.nested(
        compares, [*effects, *record], [txn.range_(key, keys_only=key in large) for key in wanted]
    )


def _effects(footprint: Footprint) -> Iterable[txn.RequestOp]:
    for fetch in footprint.fetches:  # before the puts: a range sees what earlier operations have put
        yield txn.range_(fetch.start, fetch.end, fetch.limit, fetch.keys_only)
    for key, value in footprint.puts.items():
        yield txn.put(key, value)
    for key in footprint.deletes:
        yield txn.delete(key)


def read_part(answer: txn.ResponseOp, members: Sequence[Decided]) -> PartAnswer:
    """What became of a part of a batch that landed."""
    reply = answer.response_txn
    if reply.succeeded:
        rows = [
            Row(kv.key, kv.value, kv.mod_revision, kv.create_revision)
            for response in reply.responses
            if response.WhichOneof("response") == "response_range"
            for kv in response.response_range.kvs
        ]
        return PartAnswer(True, tuple(rows))
    wanted = list(dict.fromkeys(key for member in members for key in member.footprint.reads))
    if len(reply.responses) > len(wanted):
        wanted.append(keyspace.CLUSTER_TIME)
    found = {key: fact_of(response) for key, response in zip(wanted, reply.responses, strict=True)}
    compared = {key: seen for member in members for key, seen in member.footprint.reads.items()}
    large = {key for member in members for key in member.footprint.large if found[key].mod_revision}
    changed = frozenset(key for key in large if found[key].mod_revision != compared[key])
    return PartAnswer(False, found={k: v for k, v in found.items() if k not in large}, changed=changed)


def fact_of(response: txn.ResponseOp) -> Fact:
    """What the range read of one key told."""
    rows = response.response_range.kvs
    return Fact(rows[0].value, rows[0].mod_revision) if rows else ABSENT
