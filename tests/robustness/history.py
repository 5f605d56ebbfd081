"""What the clients did: one Op for each request, with when it began, when it was answered, and what with.

Outcomes:
* `ok`: acknowledged; `refused`: an answer that depends on state and says no (401, 403, 404, 409);
* `away`: no answer, or one that promises nothing (503, 504, a broken connection, a time-out). A read that is
  away is no observation. A change that is away may take effect at any time after it began, or never: in the
  history it stays open for ever.
* `broken`: an answer that must not be (500, or one nobody understands).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OK, REFUSED, AWAY, BROKEN = "ok", "refused", "away", "broken"
FOREVER = math.inf


@dataclass(frozen=True, slots=True)
class Op:
    """One request. `subject`: what it is about (a secret, a family of tokens, a veil); times are monotonic.

    `output` is what the model judges by; `audit` is the audit record it must have left when acknowledged:
    (RPC, policy path), or None when there is none to expect.
    """

    subject: str
    kind: str
    given: tuple[Any, ...]
    begun: float
    ended: float
    outcome: str
    output: tuple[Any, ...] = ()
    node: int = 0
    request_id: str = ""
    revision: int = 0
    reason: str = ""
    audit: tuple[str, str] | None = None
    changes: bool = False

    @property
    def open_until(self) -> float:
        """When it has surely taken effect or never will: never known for a change without an answer."""
        return FOREVER if self.changes and self.outcome != OK and self.outcome != REFUSED else self.ended

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.begun


@dataclass
class History:
    """All of a run's operations; safe to be used by many threads."""

    ops: list[Op] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, op: Op) -> None:
        with self._lock:
            self.ops.append(op)

    def by_subject(self) -> Mapping[str, list[Op]]:
        """Those that observe or change something, by what they are about."""
        found: dict[str, list[Op]] = defaultdict(list)
        for op in self.ops:
            if op.outcome in (OK, REFUSED) or (op.changes and op.outcome == AWAY):
                found[op.subject].append(op)
        return found

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many, by kind and outcome."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for op in self.ops:
            found[op.kind][op.outcome] += 1
        return found

    def longest_silence(self, begin: float, end: float, nodes: Iterable[int]) -> float:
        """The longest time in [begin, end] without an acknowledgement through any of these nodes, in seconds.

        Only answers to requests that were begun within it count: they show that the cluster works then.
        """
        wanted = set(nodes)
        answers = sorted(
            op.ended for op in self.ops
            if op.outcome in (OK, REFUSED) and op.node in wanted and op.begun >= begin and op.ended <= end
        )  # fmt: skip
        marks = [begin, *answers, end]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))
