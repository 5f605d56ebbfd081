"""Who does a background duty: one replica at a time, proved by a fence, never by a lock alone.

    <key>         "<term number> <node id>", under the holder's session: gone when the session is
    <key>/term    the number of terms so far, never deleted

Rules:
* Taking office is one transaction: compare that `<key>` is absent and that `<key>/term` is as last seen →
  put both. It moves a key it compares, so an attempt that arrives late changes nothing.
* The fence is `<key>`'s mod_revision. The holder never writes the key again during a term, so every
  transaction of the duty that compares it fails from the moment the key is gone or another's. That
  comparison is the guarantee.
* An attempt whose answer was lost may have won: the key then carries our own session's lease, and the term is
  taken up as ours.
* Others watch the key and stand for office as soon as it is deleted.
* The work is cancelled when the session is lost or the key changes; work that was cancelled late is stopped
  by the fence.
* Work says what it has achieved (`Term.progress`), so that a duty that is held and does nothing is seen.
* Each term's beginning and end, and why it ended, is logged. Of terms that follow each other fast only one in
  ten seconds is, with a warning that says how many more there were.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog

from strongbox.store.duties.session import Session, Tenure
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of
from strongbox.store.etcd.errors import Compacted, EtcdError
from strongbox.store.etcd.watch import watch

_log = structlog.get_logger(__name__)
_PAUSE = 0.2  # seconds after a failure before standing again
_LOOK_AGAIN = 5.0  # seconds after which the key is read even if the watch said nothing
_DEADLINE = 2.0  # seconds for one campaign transaction
_QUIET = 10.0  # seconds that terms have to be apart for each to be logged; else one line in so many seconds


class Deposed(Exception):
    """The term is over: its election key is not at its fence."""


class _Fact(Protocol):
    @property
    def mod_revision(self) -> int: ...


class _Facts(Protocol):
    """What `Term.require` needs of a View (strongbox.store.decisions.view)."""

    def get(self, key: bytes, /) -> _Fact: ...


def _nobody_listens() -> None:
    """The default of `on_progress`: nothing is told."""


@dataclass(frozen=True, slots=True)
class Term:
    """One holder's time in office; `fence` is the election key's mod_revision."""

    number: int
    key: bytes
    fence: int
    on_progress: Callable[[], None] = field(default=_nobody_listens, compare=False, repr=False)

    def progress(self) -> None:
        """Report that a pass, or a part of a long one, is done. Costs nothing.

        Only after etcd has confirmed the fence in that pass: memory may be of an earlier term.
        """
        self.on_progress()

    def require(self, view: _Facts) -> None:
        """Make the decision depend on this term; raises Deposed when it is over."""
        if view.get(self.key).mod_revision != self.fence:
            raise Deposed(f"term {self.number} of {self.key!r} is over")

    def compare(self) -> txn.Compare:
        """The fence, for transactions that a duty writes by hand."""
        return txn.mod_is(self.key, self.fence)


class Holder(NamedTuple):
    """Who is in office and in which term."""

    node: str
    term: int


class _Told:
    """Logs one duty's terms: each one, or only how many there were when they come fast."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told_at = float("-inf")
        self._untold = 0

    def begun(self, term: Term) -> None:
        now = time.monotonic()
        if now - self._told_at < _QUIET:
            self._untold += 1
            return
        if self._untold:
            _log.warning("terms of a duty follow each other fast", duty=self._name, more=self._untold)
        self._told_at, self._untold = now, 0
        _log.info("in office", duty=self._name, term=term.number)

    def ended(self, why: str) -> None:
        """Log the end of a term whose beginning was logged."""
        if not self._untold:
            _log.info("out of office", duty=self._name, why=why)


class Duty:
    """One background duty, sought for this process's session; `on_progress` is called as its work gets on."""

    def __init__(
        self,
        etcd: Etcd,
        session: Session,
        key: bytes,
        node_id: str,
        on_progress: Callable[[], None] = _nobody_listens,
    ) -> None:
        self._etcd = etcd
        self._on_progress = on_progress
        self._told = _Told(key.decode())
        self._session = session
        self._key = key
        self._count_key = key + b"/term"
        self._node = node_id

    async def holder(self) -> Holder | None:
        """Who holds the office now (linearizable), or None."""
        row = await self._etcd.get(self._key)
        return _parse(row) if row else None

    async def run(self, work: Callable[[Term], Coroutine[Any, Any, None]]) -> None:
        """For ever: wait for office, run `work(term)`, cancel it when the term ends.

        Work that returns or fails gives the office up (another replica may do better) and stands again
        after a pause.
        """
        while True:
            try:
                tenure = await self._session.current()
                term = await self._campaign(tenure)
            except (EtcdError, Deposed) as error:
                _log.debug("not elected", duty=self._key.decode(), why=_why(error))
            else:
                self._told.begun(term)
                self._told.ended(await self._serve(term, tenure, work))
            await asyncio.sleep(_PAUSE)

    async def _campaign(self, tenure: Tenure) -> Term:
        """Stand until elected; raises Deposed when the session ends first."""
        while True:
            if not tenure.alive:
                raise Deposed("the session ended before the election was won")
            term, revision = await self._stand(tenure)
            if term:
                return term
            await _first(self._vacancy(revision), tenure.lost.wait(), within=_LOOK_AGAIN)

    async def _stand(self, tenure: Tenure) -> tuple[Term | None, int]:
        """Look, and take the office if it is free; the term if it is ours, and the store's revision."""
        deadline = time.monotonic() + _DEADLINE
        look = txn.txn([], [txn.range_(self._key), txn.range_(self._count_key)])
        seen = await self._etcd.transact(look, deadline=deadline, idempotent=True)
        office, count = (rows_of(part.response_range) for part in seen.responses)
        if office:
            return self._mine(office[0], tenure), seen.header.revision
        number = int(count[0].value) + 1 if count else 1
        answer = await self._etcd.transact(
            self._candidacy(number, count[0].mod_revision if count else 0, tenure),
            deadline=deadline,
            idempotent=True,
        )
        if answer.succeeded:
            return self._term(number, answer.header.revision), answer.header.revision
        rows = rows_of(answer.responses[0].response_range)
        return (self._mine(rows[0], tenure) if rows else None), answer.header.revision

    def _candidacy(self, number: int, count_revision: int, tenure: Tenure) -> txn.TxnRequest:
        puts = [
            txn.put(self._key, f"{number} {self._node}".encode(), tenure.lease),
            txn.put(self._count_key, str(number).encode()),
        ]
        free = [txn.mod_is(self._key, 0), txn.mod_is(self._count_key, count_revision)]
        return txn.txn(free, [txn.nested([], puts)], [txn.range_(self._key)])  # nested: a full etcd takes it

    def _mine(self, row: KV, tenure: Tenure) -> Term | None:
        """The term, if an attempt of ours whose answer was lost has won: session leases are never shared."""
        return self._term(_parse(row).term, row.mod_revision) if row.lease == tenure.lease else None

    def _term(self, number: int, fence: int) -> Term:
        return Term(number, self._key, fence, self._on_progress)

    async def _vacancy(self, revision: int) -> None:
        """Return when the key changes after `revision`."""
        try:
            async with aclosing(watch(self._etcd, self._key, start_revision=revision + 1)) as batches:
                async for _ in batches:
                    return
        except Compacted:
            return

    async def _serve(
        self, term: Term, tenure: Tenure, work: Callable[[Term], Coroutine[Any, Any, None]]
    ) -> str:
        """Run `work` until it ends or the term does; then give the office up. Returns why it ended."""
        ended: list[str] = []
        try:
            await _first(self._guarded(work, term, ended), tenure.lost.wait(), self._vacancy(term.fence))
        except EtcdError as error:
            ended.append(f"the election key is not watched: {_why(error)}")
        finally:
            await self._resign(term)
        if tenure.lost.is_set():
            ended.append("the session was lost")
        return ", ".join(ended) or "the election key changed"

    async def _guarded(
        self, work: Callable[[Term], Coroutine[Any, Any, None]], term: Term, ended: list[str]
    ) -> None:
        try:
            await work(term)
            ended.append("its work ended")
        except (EtcdError, Deposed) as error:
            ended.append(f"its work met {_why(error)}")
        except Exception:  # noqa: BLE001  whatever it was, another replica may do better
            ended.append("its work failed")
            _log.exception("a duty failed", duty=self._key.decode())

    async def _resign(self, term: Term) -> None:
        """Delete the key if it is still this term's, so that another takes over at once."""
        try:
            request = txn.txn([term.compare()], [txn.delete(self._key)])
            await self._etcd.transact(request, deadline=time.monotonic() + _DEADLINE, idempotent=True)
        except EtcdError as error:
            _log.info("the resignation is left to the session's end", why=_why(error))


def _why(error: Exception) -> str:
    return type(error).__name__


def _parse(row: KV) -> Holder:
    number, node = row.value.decode().split(" ", 1)
    return Holder(node, int(number))


async def _first(*several: Awaitable[Any], within: float | None = None) -> None:
    """Run them together until one ends or so many seconds passed; cancel the others and wait for them."""
    tasks = [asyncio.ensure_future(one) for one in several]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
