"""The checker and the models: what is right passes, each planted violation is caught."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tests.robustness.history import AWAY, OK, REFUSED, Op
from tests.robustness.linearize import check
from tests.robustness.model import FAMILY, SECRET, VEIL, Model

_CHANGES = {"write", "cas", "delete", "undelete", "destroy", "revoke", "policy", "cover"}


def op(kind: str, given: tuple[Any, ...], output: tuple[Any, ...], begun: float, ended: float) -> Op:
    outcome = REFUSED if output and output[0] in (401, 403, 404, 409) else OK
    return Op("any", kind, given, begun, ended, outcome, output, changes=kind in _CHANGES)


def away(kind: str, given: tuple[Any, ...], begun: float) -> Op:
    return Op("any", kind, given, begun, begun + 1, AWAY, changes=True)


def write(value: str, version: int, begun: float, ended: float, cas: int | None = None) -> Op:
    return op("write", (value, cas), (version,), begun, ended)


def read(version: int, value: str, begun: float, ended: float) -> Op:
    return op("read", (None,), (version, value), begun, ended)


RIGHT: dict[str, tuple[Model, list[Op]]] = {
    "a read during a write may see either": (
        SECRET, [write("a", 1, 0, 1), write("b", 2, 2, 5), read(1, "a", 3, 4), read(2, "b", 3, 4)],
    ),
    "a write without an answer may have happened": (
        SECRET, [write("a", 1, 0, 1), away("write", ("b", None), 2), read(2, "b", 9, 10)],
    ),
    "a write without an answer may never happen": (
        SECRET, [write("a", 1, 0, 1), away("write", ("b", None), 2), read(1, "a", 9, 10)],
    ),
    "a write without an answer may happen late": (
        SECRET,
        [write("a", 1, 0, 1), away("write", ("b", None), 2), read(1, "a", 9, 10), read(2, "b", 11, 12)],
    ),
    "a cas without an answer that cannot apply": (
        SECRET, [write("a", 1, 0, 1), away("cas", ("b", 0), 2), read(1, "a", 9, 10)],
    ),
    "the loser of two cas is told so": (
        SECRET, [write("a", 1, 0, 3, cas=0), op("cas", ("b", 0), (409,), 0, 3)],
    ),
    "a use at the moment of the revocation": (
        FAMILY, [op("use", ("child",), (200,), 0, 3), op("revoke", ("child",), (), 1, 2)],
    ),
    "what is open when the policy allows": (
        VEIL,
        [op("cover", ("open",), (), 0, 1), op("policy", (True,), (), 2, 3),
         op("look", (0,), ("open",), 4, 5)],
    ),
}  # fmt: skip
WRONG: dict[str, tuple[Model, list[Op]]] = {
    "a lost write": (SECRET, [write("a", 1, 0, 1), write("b", 2, 2, 3), read(1, "a", 4, 5)]),
    "a stale read": (
        SECRET, [write("a", 1, 0, 1), write("b", 2, 2, 6), read(2, "b", 3, 4), read(1, "a", 4.5, 5)],
    ),
    "a write applied twice": (SECRET, [write("a", 1, 0, 1), read(2, "a", 2, 3)]),
    "two writers of one version": (SECRET, [write("a", 1, 0, 3), write("b", 1, 1, 4)]),
    "two winners of one cas": (SECRET, [write("a", 1, 0, 3, cas=0), write("b", 2, 0, 3, cas=0)]),
    "a value nobody wrote": (SECRET, [write("a", 1, 0, 1), read(1, "z", 2, 3)]),
    "a write that was refused and is read": (
        SECRET, [write("a", 1, 0, 1), op("cas", ("b", 0), (409,), 2, 3), read(2, "b", 4, 5)],
    ),
    "a destroyed value is returned": (
        SECRET, [write("a", 1, 0, 1), op("destroy", (1,), (1,), 2, 3), read(1, "a", 4, 5)],
    ),
    "an acknowledged write that is not there": (
        SECRET, [write("a", 1, 0, 1), op("read", (None,), (404, "NOT_FOUND"), 2, 3)],
    ),
    "a listing that forgets": (SECRET, [write("a", 1, 0, 1), op("list", (), (False,), 2, 3)]),
    "an open write taken back": (
        SECRET,
        [write("a", 1, 0, 1), away("write", ("b", None), 2), read(2, "b", 3, 4), read(1, "a", 5, 6)],
    ),
    "a revoked token works": (
        FAMILY, [op("revoke", ("child",), (), 0, 1), op("use", ("child",), (200,), 2, 3)],
    ),
    "the child of a revoked parent works": (
        FAMILY, [op("revoke", ("parent",), (), 0, 1), op("use", ("child",), (404,), 2, 3)],
    ),
    "a living token is refused": (FAMILY, [op("use", ("child",), (401,), 0, 1)]),
    "a policy older than the read": (
        VEIL,
        [op("cover", ("open",), (), 0, 1), op("policy", (True,), (), 2, 3), op("policy", (False,), (), 4, 5),
         op("look", (0,), ("open",), 6, 7)],
    ),
    "a policy newer than the read": (
        VEIL,
        [op("cover", ("hidden",), (), 0, 1), op("cover", ("open",), (), 2, 3),
         op("policy", (True,), (), 4, 5), op("look", (0,), ("hidden",), 1.5, 6)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_could_have_been_passes(name: str) -> None:
    model, ops = RIGHT[name]
    assert check(ops, model).ok is True


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_have_been_is_caught(name: str) -> None:
    model, ops = WRONG[name]
    assert check(ops, model).ok is False


def test_what_takes_too_long_is_not_called_right() -> None:
    ops = [away("write", (str(n), None), 0) for n in range(12)]
    assert check([*ops, read(3, "z", 20, 21)], SECRET, most=3).ok is None


def test_unanswered_writes_that_nobody_saw_do_not_multiply_what_is_tried() -> None:
    ops = [away("write", (str(n), None), n) for n in range(40)]
    assert check([*ops, read(21, "7", 50, 51)], SECRET, most=5_000).ok is True
    assert check([*ops, read(41, "7", 50, 51)], SECRET, most=5_000).ok is False
    assert check([*ops, read(21, "z", 50, 51)], SECRET, most=5_000).ok is False


def test_real_histories_pass_and_one_changed_answer_does_not() -> None:
    """Histories of a real sequence, each operation given time around its moment; then one answer lies."""
    random_ = random.Random(7)
    for _ in range(60):
        ops = _true_history(random_, 40)
        assert check(ops, SECRET).ok is True
        reads = [i for i, one in enumerate(ops) if one.kind == "read" and one.outcome == OK]
        if reads:
            wrong = list(ops)
            one = wrong[random_.choice(reads)]
            wrong[wrong.index(one)] = op("read", (None,), (one.output[0], "a lie"), one.begun, one.ended)
            assert check(wrong, SECRET).ok is False


def _true_history(random_: random.Random, count: int) -> list[Op]:
    state: Any = ()
    found = []
    for number, moment in zip(range(count), itertools.count(0.0, 1.0), strict=False):
        begun, ended = moment - random_.random() * 3, moment + random_.random() * 3
        if random_.random() < 0.5:
            one = write(f"v{number}", len(state) + 1, begun, ended)
            if random_.random() < 0.1:
                one = away("write", (f"v{number}", None), begun)
        elif not state:
            one = op("read", (None,), (404, "NOT_FOUND"), begun, ended)
        else:
            one = read(len(state), state[-1][0], begun, ended)
        after = SECRET.step(state, one)
        assert after is not None
        state = after
        found.append(one)
    return found
