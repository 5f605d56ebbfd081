"""Whether the cluster's duties make progress, judged by snapshots (strongbox.process.duties has the bounds).

* A duty makes progress when a process reports a moment of progress that it had not reported before. Only that
  it changes counts, not what any clock says: a clock that jumps makes no duty late, and hides no late one.
* Idle time grows with each snapshot, by 3 s at most: so a process that was stopped, or without etcd, finds no
  duty late when it is back. While the cluster is sealed no idle time counts.
* Counting begins with this process: nothing is late before its bound has passed here.
* A holder of an older version does not report progress; that it holds the duty has to be enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.seal.cluster_overview import Snapshot
from strongbox.process.duties import DUTIES, Bounds

MOST_GAP_S = 3.0


@dataclass(slots=True)
class Standing:
    """The state of one duty; `success_ms` by its holder's clock, 0: not known."""

    bounds: Bounds
    holder: str = ""
    terms: int = 0
    success_ms: int = 0
    idle_s: float = 0.0
    told: dict[str, int] = field(default_factory=dict)  # by node, the last progress it reported

    @property
    def is_late(self) -> bool:
        """Whether it made no progress for longer than it should take."""
        return self.idle_s > self.bounds.late_after_s


class Duties:
    """What this process has seen of all duties; survives every change of holder."""

    def __init__(self) -> None:
        self.all = {name: Standing(bounds) for name, bounds in DUTIES.items()}
        self._looked_at: float | None = None

    def judge(self, seen: Snapshot, now: float) -> None:
        """Take in a snapshot that ended at monotonic `now`."""
        gap = 0.0 if self._looked_at is None else min(MOST_GAP_S, max(0.0, now - self._looked_at))
        self._looked_at = now
        for name, duty in self.all.items():
            duty.holder, duty.terms = seen.holders.get(name, ("", 0))
            if _gets_on(name, duty, seen) or seen.is_sealed:
                duty.idle_s = 0.0
            else:
                duty.idle_s += gap

    def late_for_safety(self) -> list[str]:
        """The late duties without which a promise to clients does not hold."""
        return [name for name, duty in self.all.items() if duty.bounds.for_safety and duty.is_late]


def _gets_on(name: str, duty: Standing, seen: Snapshot) -> bool:
    """Whether a process reports progress that was not known; notes what is reported."""
    told = seen.progress(duty.bounds.service, name)
    if told.get(duty.holder, 0) is None:
        return True  # an older version
    fresh = {node: ms for node, ms in told.items() if ms and ms != duty.told.get(node)}
    # Only of nodes that are there: pods have another name after each restart.
    duty.told = {node: ms for node, ms in {**duty.told, **fresh}.items() if node in told}
    duty.success_ms = max(fresh.values(), default=duty.success_ms)
    return bool(fresh)
