"""What each kind of subject does when its operations happen one after the other. Pure.

A model is a first state and `step(state, op)`: the state after `op`, or None when `op` could not have had its
output in that state. An operation without an answer has its effect if it can have one, and any output: where
it never took effect the checker may put it at the very end, where nobody sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from tests.robustness.history import AWAY, OK, Op

State = Hashable
LIVE, DELETED, DESTROYED, GONE = "live", "deleted", "destroyed", "gone"
_KEPT = 10  # versions of a secret


class Model(NamedTuple):
    """`first` is the state before any operation."""

    first: State
    step: Callable[[Any, Op], State | None]


# A secret: a tuple of (value, how it is) by version.
Versions = tuple[tuple[str, str], ...]


def _secret(state: Versions, op: Op) -> Versions | None:
    after = _SECRET_STEPS[op.kind](state, op)
    if op.outcome == AWAY:
        return state if after is None else after
    return after


def _write(state: Versions, op: Op) -> Versions | None:
    value, cas = op.given
    if cas is not None and cas != len(state):
        return state if op.output == (409,) or op.outcome == AWAY else None
    if op.outcome == OK and op.output != (len(state) + 1,):
        return None
    if op.outcome not in (OK, AWAY):
        return None
    after = (*state, (value, LIVE))
    oldest = len(after) - _KEPT - 1
    if oldest >= 0:
        after = (*after[:oldest], ("", GONE), *after[oldest + 1 :])
    return after


def _read(state: Versions, op: Op) -> Versions | None:
    (number,) = op.given
    if not state:
        return state if op.output == (404, "NOT_FOUND") else None
    number = number or len(state)
    value, how = state[number - 1] if number <= len(state) else ("", GONE)
    expected: tuple[Any, ...] = {
        LIVE: (number, value),
        DELETED: (404, "DELETED"),
        DESTROYED: (404, "DESTROYED"),
        GONE: (404, "NOT_FOUND"),
    }[how]
    return state if op.output == expected else None


def _turn(allowed: tuple[str, ...], into: str) -> Callable[[Versions, Op], Versions | None]:
    """Delete, undelete, destroy: versions that are `allowed` become `into`."""

    def step(state: Versions, op: Op) -> Versions | None:
        (number,) = op.given
        if op.output == (404, "NOT_FOUND"):
            missing = not state or (number or 1) > len(state) or state[(number or 1) - 1][1] == GONE
            return state if missing else None
        if not state:
            return None
        number = number or len(state)
        if number > len(state) or state[number - 1][1] == GONE:
            return None
        value, how = state[number - 1]
        if op.output == (404, "DESTROYED"):
            return state if into == LIVE and how == DESTROYED else None
        if into == LIVE and how == DESTROYED:
            return None
        if how not in allowed:
            return state
        return (*state[: number - 1], (value, into), *state[number:])

    return step


def _exists(state: Versions, op: Op) -> Versions | None:
    return state if op.output == (bool(state),) else None


def _metadata(state: Versions, op: Op) -> Versions | None:
    """Output: the current version and how each is, or 404."""
    if not state:
        return state if op.output == (404, "NOT_FOUND") else None
    current, how = op.output if len(op.output) == 2 else (0, ())
    expected = tuple(kind for _, kind in state if kind != GONE)
    return state if current == len(state) and how == expected else None


_SECRET_STEPS: dict[str, Callable[[Versions, Op], Versions | None]] = {
    "write": _write,
    "cas": _write,
    "read": _read,
    "delete": _turn((LIVE,), DELETED),
    "undelete": _turn((DELETED,), LIVE),
    "destroy": _turn((LIVE, DELETED), DESTROYED),
    "list": _exists,
    "metadata": _metadata,
}


def _family(dead: frozenset[str], op: Op) -> frozenset[str] | None:
    """A token and its child; revoking the parent kills both. `dead`: those revoked by name."""
    (who,) = op.given
    if op.kind == "revoke":
        return dead | {who}
    alive = who not in dead and "parent" not in dead
    return dead if alive == (op.output != (401,)) else None


class _Veil(NamedTuple):
    """A policy and the secret under it."""

    allowed: bool
    value: str


def _veil(state: _Veil, op: Op) -> _Veil | None:
    (given,) = op.given
    if op.kind == "policy":
        return state._replace(allowed=given)
    if op.kind == "cover":
        return state._replace(value=given)
    if op.output == (403,):
        return None if state.allowed else state
    return state if state.allowed and op.output == (state.value,) else None


SECRET = Model((), _secret)
FAMILY = Model(frozenset(), _family)
VEIL = Model(_Veil(False, ""), _veil)
MODELS = {"secret": SECRET, "family": FAMILY, "veil": VEIL}


def model_of(subject: str) -> Model:
    """By the word before the first colon."""
    return MODELS[subject.partition(":")[0]]
