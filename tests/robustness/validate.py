"""Is everything as promised? Each function returns violations, as sentences; none is what must be.

The invariants are those of the acceptance list; which one a sentence is about is its first word.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.robustness.history import AWAY, BROKEN, OK, REFUSED, History, Op
from tests.robustness.linearize import check
from tests.robustness.model import model_of
from tests.robustness.run import Struck

# A request ends after 2 s, after 5 where PostgreSQL works; the rest is for a busy machine.
DEADLINE, LONG_DEADLINE = 4.5, 7.5
_LONG = {"issue", "renew", "end"}
_VALUES = {"read", "own version", "look"}
_ON_ITS_WAY = 0.5  # seconds from one process's last word to a client, through the gateway
_SHOWN = 5  # of each sort


def linearizable(history: History) -> Iterator[str]:
    """Each secret, each family of tokens and each veil behaves as if one thing happened after the other."""
    for subject, ops in history.by_subject().items():
        if subject == "made":
            continue
        verdict = check(ops, model_of(subject))
        if verdict.ok is None:
            yield f"linearizable: {subject} could not be decided ({len(ops)} operations)"
        elif not verdict.ok:
            yield (
                f"linearizable: {subject} ({len(ops)} operations): in the state {verdict.state} none of "
                f"these can be next: {'; '.join(_short(op) for op in verdict.stuck[:_SHOWN])}"
            )


def in_order(history: History) -> Iterator[str]:
    """Whatever is acknowledged before something else begins has an earlier revision."""
    known = [op for op in history.ops if op.outcome == OK and op.revision]
    newest, answers = 0, sorted(known, key=lambda op: op.ended)
    index = 0
    for op in sorted(known, key=lambda op: op.begun):
        while index < len(answers) and answers[index].ended < op.begun:
            newest = max(newest, answers[index].revision)
            index += 1
        if op.revision < newest:
            yield f"order: {_short(op)} has revision {op.revision}, and {newest} was answered before it began"


def nothing_broken(history: History) -> Iterator[str]:
    """No answer that must not be: an internal error, or one that nobody understands."""
    for op in history.ops:
        if op.outcome == BROKEN:
            yield f"broken: {_short(op)}: {op.reason}"


def in_time(history: History, struck: Sequence[Struck], slack: float = 1.0) -> Iterator[str]:
    """Every request ends within its deadline, except at a gateway that was itself struck."""
    for op in history.ops:
        deadline = LONG_DEADLINE if op.kind in _LONG else DEADLINE
        if op.took > deadline * slack and not any(_excuses(one, op) for one in struck):
            yield f"deadline: {_short(op)} took {op.took:.1f} s ({op.reason})"


def _excuses(struck: Struck, op: Op) -> bool:
    overlaps = op.begun <= struck.recovered and op.ended >= struck.begun
    return overlaps and op.node in struck.fault.silent


def sealed(history: History, windows: Sequence[tuple[float, float]], slack: float = 1.0) -> Iterator[str]:
    """Between the answer of `seal` and the first share nothing is answered but that it is sealed.

    What was begun before gives no value any more either: `_ON_ITS_WAY` is for answers that had left.
    """
    for begin, end in windows:
        left_by = begin + _ON_ITS_WAY * slack
        for op in history.ops:
            if op.kind in _VALUES and op.outcome == OK and op.begun < begin and left_by < op.ended <= end:
                yield f"sealed: {_short(op)} gave a value {op.ended - begin:.1f} s after `seal` had answered"
        for op in history.ops:
            if op.begun >= begin and op.ended <= end and op.outcome in (OK, REFUSED):
                yield f"sealed: {_short(op)} was answered ({op.reason}) while sealed"


def available(struck: Sequence[Struck], slack: float = 1.0) -> Iterator[str]:
    """Everybody who is not struck is served, with pauses that are bounded; and in the end everything is."""
    for one in struck:
        if one.fault.spared and one.silence > one.fault.pause * slack:
            silence = f"{one.silence:.1f} s without an answer (at most {one.fault.pause:.0f})"
            yield f"available: {one.fault}: {silence}"
        if one.trouble:
            yield f"available: {one.fault}: {one.trouble}"


def audited(history: History, lines: Iterable[bytes]) -> Iterator[str]:
    """The chain holds every acknowledged operation, and each record once."""
    entries = [json.loads(line) for line in lines]
    yield from _once(entries)
    by_request: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        by_request[entry["request_id"]].append(entry)
    for op in history.ops:
        if op.audit is None or not op.request_id or op.outcome not in (OK, REFUSED) or op.output == (401,):
            continue
        found = [e for e in by_request[op.request_id] if (e["op"], e["path"]) == op.audit]
        outcomes = {e["outcome"] for e in found}
        if ("ok" if op.outcome == OK else "refused") not in outcomes:
            yield f"audit: {_short(op)} ({op.reason}) is acknowledged and not in the chain {sorted(outcomes)}"
        many = Counter(e["producer"] for e in found)
        for producer, times in many.items():
            if times > 1:
                yield f"audit: {_short(op)} is {times} times in the chain, by {producer}"


def _once(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seen = Counter((entry["producer"], entry["producer_seq"]) for entry in entries)
    for (producer, number), times in seen.items():
        if times > 1:
            yield f"audit: record {number} of {producer} is {times} times in the chain"


def enough(history: History, struck: Sequence[Struck], least_ops: int, least_faults: int) -> Iterator[str]:
    """A run that did little proves little."""
    done = sum(op.outcome in (OK, REFUSED) for op in history.ops)
    if done < least_ops:
        yield f"enough: only {done} operations were answered, not {least_ops}"
    if len(struck) < least_faults:
        yield f"enough: only {len(struck)} faults were injected, not {least_faults}"
    missing = {"write", "cas", "read", "delete", "destroy", "list", "revoke", "use", "policy", "look"}
    missing |= {"issue", "renew", "end"}
    for kind in sorted(missing - {op.kind for op in history.ops if op.outcome in (OK, REFUSED)}):
        yield f"enough: no {kind} was answered"


def _short(op: Op) -> str:
    result = op.output if op.outcome != AWAY else "no answer"
    when = f"t={op.begun:.3f}..{op.ended:.3f}"
    return f"{op.kind}{op.given} of {op.subject} at node-{op.node + 1}, {when}, -> {result}"
