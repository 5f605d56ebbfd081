"""What a run prints: operations by outcome, faults and the longest unavailability by kind, violations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.robustness.history import AWAY, BROKEN, OK, REFUSED, History
from tests.robustness.run import Struck

_OUTCOMES = (OK, REFUSED, AWAY, BROKEN)
_MOST_VIOLATIONS = 40
_NOTED_S = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """Of the run: seconds, by how much times were allowed to be longer, seconds by which the wall clock was
    set, and when people had to unseal because etcd had stood still.
    """

    seconds: float
    slack: float
    wall_set_by: float
    unsealed: Sequence[str]


def lines(history: History, struck: Sequence[Struck], violations: Sequence[str], told: Told) -> Iterator[str]:
    """The closing report."""
    yield ""
    yield f"{'operation':<10}" + "".join(f"{outcome:>9}" for outcome in _OUTCOMES)
    for kind, counts in sorted(history.counts().items()):
        yield f"{kind:<10}" + "".join(f"{counts.get(outcome, 0):>9}" for outcome in _OUTCOMES)
    yield ""
    yield f"{'fault':<32}{'injected':>9}{'longest silence, s':>20}{'until all served, s':>21}"
    for kind, several in sorted(_by_kind(struck).items()):
        silence = max(one.silence for one in several)
        recovery = max(one.recovered - one.undone for one in several)
        yield f"{kind:<32}{len(several):>9}{silence:>20.2f}{recovery:>21.2f}"
    answered = sum(op.outcome in (OK, REFUSED) for op in history.ops)
    yield ""
    yield (
        f"{len(history.ops)} operations ({answered} answered), {len(struck)} faults of "
        f"{len(_by_kind(struck))} kinds in {told.seconds:.0f} s"
    )
    if told.slack > 1.0:
        yield f"the machine was busy with other things: times could be {told.slack:.1f} times as long"
    if abs(told.wall_set_by) > _NOTED_S:
        yield f"the machine's wall clock was set by {told.wall_set_by:+.1f} s meanwhile"
    for when in told.unsealed:
        yield f"no time for etcd: the cluster sealed itself, people unsealed it: {when}"
    for violation in violations[:_MOST_VIOLATIONS]:
        yield f"VIOLATION  {violation}"
    if len(violations) > _MOST_VIOLATIONS:
        yield f"… and {len(violations) - _MOST_VIOLATIONS} more"
    yield f"{len(violations)} violations"


def _by_kind(struck: Sequence[Struck]) -> dict[str, list[Struck]]:
    found: dict[str, list[Struck]] = defaultdict(list)
    for one in struck:
        found[one.fault.kind].append(one)
    return found
