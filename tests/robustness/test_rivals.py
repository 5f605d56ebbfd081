"""What was told to writers, held against what readers find, by hand."""

from __future__ import annotations

from tests.robustness.history import AWAY, History
from tests.robustness.traffic.asking import CANARY, Asked, Target, Worker
from tests.robustness.traffic.rivals import LIFE, Told
from tests.support.silent import silent_server


def test_a_version_that_holds_another_writers_value_is_found() -> None:
    told = Told()
    told.acknowledged("p", 1, CANARY + "mine")
    assert told.wrong("p", 1, CANARY + "mine", "here") == []
    (found,) = told.wrong("p", 1, CANARY + "another's", "here")
    assert "holds another's value" in found


def test_a_version_that_two_writers_were_told_is_found() -> None:
    told = Told()
    told.acknowledged("p", 1, "mine")
    told.acknowledged("p", 1, "yours")
    assert len(told.violations) == 1


def test_rivals_meet_on_one_path_through_one_node_and_then_go_on_to_the_next() -> None:
    told = Told()
    met = [told.meet(3) for _ in range(2 * LIFE)]
    assert len(set(met[:LIFE])) == len(set(met[LIFE:])) == 1
    assert met[0] != met[-1]


class _Impatient(Worker):
    leaving = 1.0

    def turn(self) -> None:
        """Nothing by itself."""


def test_who_leaves_has_no_answer_and_what_he_asked_stays_open_for_ever() -> None:
    history = History()
    with silent_server() as gateway:
        worker = _Impatient(Target([gateway], "root", "client"), history)
        worker.rest(Asked("secret:p", "write", ("v", None), None, changes=True), "t", "PUT", "/v1/x", {})
        worker.native(
            Asked("secret:p", "write", ("v", None), None, changes=True), "t", "WriteSecret", path="p"
        )
        worker.close()
    for op in history.ops:
        assert op.outcome == AWAY
        assert op.reason.endswith("LEFT")
        assert op.open_until == float("inf")
        assert op.took < 4
