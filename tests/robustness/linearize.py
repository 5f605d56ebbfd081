"""Is there an order of these operations, within the times each was under way, that the model could have had?

The algorithm of Wing and Gong with Lowe's memory of (operations taken, state), as in Porcupine: take any
operation that began before the first answer still outstanding, if the model allows it; go back when stuck.
It decides: an order found is shown to exist, and when none is, all that differ were tried. The number of
configurations is bounded; beyond that it says that it does not know, which is no success.

Of operations without an answer that do the same (writes of values that nobody ever saw are alike), only
the one that began first is tried: it can stand wherever a later one could, so no order is missed, and
outages, which leave many of them, do not multiply what has to be tried.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass

from tests.robustness.history import FOREVER, Op
from tests.robustness.model import Model, State

MOST = 1_000_000  # configurations of one subject
_WRITES = ("write", "cas", "cover")  # what is given first is the value


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok` None: not decided. `stuck`: the operations none of which could be next, where it came furthest."""

    ok: bool | None
    stuck: tuple[Op, ...] = ()
    state: State = None


def check(ops: Sequence[Op], model: Model, most: int = MOST) -> Verdict:
    """Judge the operations of one subject."""
    order = sorted(ops, key=lambda op: (op.begun, op.open_until))
    # Those with an answer have to be taken; an open one that nobody needs may be left out altogether.
    needed = sum(1 << i for i, op in enumerate(order) if op.open_until != FOREVER)
    alike = _alike(order)
    seen: set[tuple[int, State]] = {(0, model.first)}
    stack: list[tuple[int, State, list[int]]] = [(0, model.first, _first_of_alike(_next(order, 0), alike))]
    best: tuple[int, int, State] = (-1, 0, model.first)
    while stack:
        taken, state, candidates = stack[-1]
        done = taken & needed
        if done == needed:
            return Verdict(True)
        if done.bit_count() > best[0]:
            best = done.bit_count(), taken, state
        if not candidates:
            stack.pop()
            continue
        index = candidates.pop()
        after = model.step(state, order[index])
        if after is None:
            continue
        configuration = (taken | 1 << index, after)
        if configuration in seen:
            continue
        if len(seen) >= most:
            return Verdict(None, tuple(order[i] for i in _next(order, best[1])), best[2])
        seen.add(configuration)
        stack.append((*configuration, _first_of_alike(_next(order, configuration[0]), alike)))
    return Verdict(False, tuple(order[i] for i in _next(order, best[1])), best[2])


def _next(order: Sequence[Op], taken: int) -> list[int]:
    """Those that may be next, the likeliest last: those answered first; open ones only when nothing else."""
    first_answer = FOREVER
    found: list[int] = []
    for index in range((~taken & (taken + 1)).bit_length() - 1, len(order)):  # from the first not taken
        op = order[index]
        if op.begun > first_answer:
            break
        if taken >> index & 1:
            continue
        found.append(index)
        first_answer = min(first_answer, op.open_until)
    found = [index for index in found if order[index].begun <= first_answer]
    return sorted(found, key=lambda index: -order[index].open_until)


def _alike(order: Sequence[Op]) -> list[Hashable | None]:
    """For each operation without an answer what it does: equal ones do the same. None for the others."""
    told = {each for op in order for each in op.output}
    return [_effect(op, told) if op.open_until == FOREVER else None for op in order]


def _effect(op: Op, told: Container[object]) -> Hashable:
    first, *rest = op.given
    unseen = op.kind in _WRITES and first not in told
    return op.kind, op.outcome, None if unseen else first, *rest


def _first_of_alike(candidates: list[int], alike: Sequence[Hashable | None]) -> list[int]:
    """Less those that another one, which began earlier, stands for; the order stays."""
    first: dict[Hashable, int] = {}
    for index in sorted(candidates):
        if alike[index] is not None:
            first.setdefault(alike[index], index)
    return [index for index in candidates if alike[index] is None or first[alike[index]] == index]
