"""A request as the pipeline takes it (`Work`), on its way (`Item`), and what came of it (`Outcome`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from strongbox.errors import Internal, NoQuorum, StrongBoxError, UnknownOutcome
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.batch_txn import Decided
from strongbox.store.decisions.view import Row, View
from strongbox.store.space.admission import Effect

T = TypeVar("T")
FROM_MEMORY = 2  # tries before a contended request reads first
_log = structlog.get_logger(__name__)


class Outcome(NamedTuple, Generic[T]):
    """What was decided, the etcd revision that proves it, and the rows of its fetches."""

    value: T
    revision: int
    rows: tuple[Row, ...]


@dataclass(slots=True)
class Work(Generic[T]):
    """One request; `draft` is its audit record to be (None: a duty's work), `deadline` is monotonic.

    `on_decided` is called when the transaction is about to be sent, and again if it is decided again.
    `always`: taken even when the audit outbox or etcd is full (init, unseal, sealing, the outbox's own
    upkeep). `effect` is said by duties that must go on when etcd is nearly full, reading included.
    `weight`: bytes that it keeps in memory until it is over; what is small needs none.
    """

    decide: Callable[[View], T]
    draft: Draft | None
    deadline: float
    on_decided: Callable[[T], None] | None = None
    always: bool = False
    effect: Effect | None = None
    weight: int = 0

    def __post_init__(self) -> None:
        if self.always:
            self.effect = Effect.SAFETY


class Item:
    """A request in the pipeline."""

    __slots__ = (
        "accepted",
        "alone",
        "bystander",
        "decided",
        "done",
        "effect",
        "fresh_since",
        "proved",
        "read",
        "refusal",
        "rounds",
        "sent",
        "tries",
        "value",
        "view",
        "weight",
        "work",
    )

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.done: asyncio.Future[Outcome[Any]] = asyncio.get_running_loop().create_future()
        self.accepted = time.monotonic()
        self.fresh_since = 0.0
        self.tries = 0
        self.weight = work.weight
        self.read, self.rounds = 0, 0  # bytes read for it, in so many reads one after the other
        self.effect = Effect.NEUTRAL
        self.alone = False
        self.bystander = 0  # times that its part failed by another's compares
        self.sent = False
        self.value: Any = None
        self.view: View | None = None
        self.refusal: StrongBoxError | None = None
        self.decided: Decided | None = None
        self.proved: float | None = None  # when the transaction was sent that found the cluster unsealed

    @property
    def must_go_on(self) -> bool:
        """Whether it is taken however full etcd is: it frees, or safety needs it."""
        return self.effect in (Effect.FREES, Effect.SAFETY)

    def fail(self, error: Exception) -> None:
        # A traceback's frames hold the item: the circle would keep a request's values in memory (`Decider`).
        if not self.done.done():
            self.done.set_exception(error.with_traceback(None))

    def expire(self) -> None:
        """The deadline has come: what was sent may still take effect, what was not never will."""
        changes = self.sent and self.decided is not None and self.decided.footprint.changes
        self.fail(UnknownOutcome() if changes else NoQuorum())

    def again(self, *, fresh: bool) -> None:
        """Prepare to be decided once more: what was sent has surely not taken effect."""
        self.tries += 1
        self.sent, self.decided, self.read, self.rounds = False, None, 0, 0
        if fresh or self.tries > FROM_MEMORY:
            self.fresh_since = time.monotonic()

    def succeed(self, revision: int, rows: tuple[Row, ...], asked: float) -> None:
        if self.done.done():
            return
        if self.view is not None and self.view.proves_unsealed:
            self.proved = asked
        if self.refusal is not None or self.view is None:
            self.done.set_exception(self.refusal or Internal())
            return
        try:
            self.done.set_result(Outcome(self.view.told(self.value, rows), revision, rows))
        except Exception:  # noqa: BLE001  one defective reading must not fail its whole batch
            _log.exception("what was read could not be told")
            self.done.set_exception(Internal())
