"""What every client does: ask one gateway, and write down what came of it."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.robustness.door import LEFT, NOTHING, TIMEOUT, Answer, Native, Rest
from tests.robustness.history import AWAY, BROKEN, OK, REFUSED, History, Op

PAUSE = 0.012  # seconds between two requests of one client: the machine has to serve them as well
CANARY = "canary-7f3e9a1c-"  # begins every value, and so must be found nowhere on any disk
_REFUSALS = (401, 403, 404, 409)
_AWAY = (NOTHING, 429, 503, 504)
_HASTY = 0.1  # seconds
# Seconds that a client waits who leaves: about as long as an answer takes, or into an outage of etcd's.
_LEAVES_AFTER = ((0.002, 0.03), (0.05, 0.4))


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients go: the gateways by node; the root token, with which things are prepared; their own."""

    gateways: Sequence[str]
    root: str
    client: str


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation to be done. `read_output` makes the model's output of a success.

    `audit`: RPC and policy path of the record it leaves. `refusals`: statuses that say no to it.
    """

    subject: str
    kind: str
    given: tuple[Any, ...]
    audit: tuple[str, str] | None
    changes: bool = False
    read_output: Callable[[Answer], tuple[Any, ...]] = lambda _: ()
    refusals: tuple[int, ...] = _REFUSALS


class Worker(ABC):
    """One client, in a thread of its own, with a connection to each gateway it uses.

    `leaving`: the part of its requests for whose answers it does not wait. What they asked may happen or not.
    """

    leaving = 0.0

    def __init__(self, target: Target, history: History) -> None:
        self.target = target
        self._history = history
        self._rests: dict[int, Rest] = {}
        self._natives: dict[int, Native] = {}
        self.random = random.Random(0)

    def work(self, stop: threading.Event, own: random.Random) -> None:
        """Until told to stop."""
        self.random = own
        while not stop.is_set():
            self.turn()
            time.sleep(PAUSE)
        self.close()

    def close(self) -> None:
        """Its connections."""
        for door in (*self._rests.values(), *self._natives.values()):
            door.close()

    @abstractmethod
    def turn(self) -> None:
        """One step."""

    def rest(
        self, asked: Asked, token: str, method: str, path: str, body: Any = None, node: int = -1
    ) -> Answer:
        """Over REST, through a gateway of its choice unless named."""
        node = self._choose(node)
        door = self._rests.get(node) or self._rests.setdefault(node, Rest(self.target.gateways[node]))
        return self._timed(
            asked, node, lambda: door.call(token, method, path, body, patience=self._patience())
        )

    def native(self, asked: Asked, token: str, rpc: str, /, node: int = -1, **fields: Any) -> Answer:
        """Over gRPC."""
        node = self._choose(node)
        door = self._natives.get(node) or self._natives.setdefault(node, Native(self.target.gateways[node]))
        return self._timed(asked, node, lambda: door.call(token, rpc, patience=self._patience(), **fields))

    def _patience(self) -> float:
        if self.random.random() >= self.leaving:
            return TIMEOUT
        return self.random.uniform(*self.random.choice(_LEAVES_AFTER))

    def _choose(self, node: int) -> int:
        return self.random.randrange(len(self.target.gateways)) if node < 0 else node

    def _timed(self, asked: Asked, node: int, call: Callable[[], Answer]) -> Answer:
        begun = time.monotonic()
        answer = call()
        ended = time.monotonic()
        outcome, output = _judged(asked, answer)
        if outcome == AWAY and answer.reason != LEFT and ended - begun < _HASTY:
            time.sleep(_HASTY)  # refused at once: no reason to ask a hundred times a second
        self._history.add(
            Op(
                subject=asked.subject,
                kind=asked.kind,
                given=asked.given,
                begun=begun,
                ended=ended,
                outcome=outcome,
                output=output,
                node=node,
                request_id=answer.request_id,
                revision=_revision_of(answer),
                reason=f"{answer.status} {answer.reason}".strip(),
                audit=asked.audit,
                changes=asked.changes,
            )
        )
        return answer


def field_of(answer: Answer, name: str) -> Any:
    """A field of an answer, REST or native."""
    message = answer.body.get("message")
    return getattr(message, name) if message is not None else answer.body.get(name)


def _judged(asked: Asked, answer: Answer) -> tuple[str, tuple[Any, ...]]:
    if answer.status == 200:
        return OK, asked.read_output(answer)
    if answer.status == 404:
        return REFUSED, (404, answer.reason)
    if answer.status in asked.refusals:
        return REFUSED, (answer.status,)
    return (AWAY if answer.status in _AWAY else BROKEN), ()


def _revision_of(answer: Answer) -> int:
    return int(field_of(answer, "revision") or 0) if answer.status == 200 and _has_revision(answer) else 0


def _has_revision(answer: Answer) -> bool:
    message = answer.body.get("message")
    return hasattr(message, "revision") if message is not None else "revision" in answer.body
