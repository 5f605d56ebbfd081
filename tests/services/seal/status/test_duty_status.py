"""Duties that nobody holds, or that are held and make no progress, are late; nothing else is."""

from __future__ import annotations

from typing import Any

from services.seal.cluster_overview import Replica, Snapshot
from services.seal.repository import SealState
from services.seal.status.duty_status import MOST_GAP_S, Duties
from strongbox.process.duties import DUTIES
from strongbox.storage.v1 import seal_records_pb2 as storage

LATE_AFTER = DUTIES["reaper"].late_after_s
_EVERY = 2.0  # seconds between looks


class Watched:
    """The duties under a seal process's eyes; time goes by in looks."""

    def __init__(self) -> None:
        self.duties = Duties()
        self.now = 1000.0
        self.sealed = False
        self.holders = {"reaper": ("node-1", 1)}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.tell(1, node="node-1")

    def tell(self, success_ms: int, node: str = "node-1") -> None:
        """A lease process says when it last made progress."""
        self.sessions[f"lease/{node}"] = {"duties": {"reaper": success_ms}}

    def look(self, gap: float = _EVERY) -> None:
        self.now += gap
        state = SealState(is_sealed=self.sealed, generation=2)
        replicas = (Replica("node-1", True, not self.sealed, True),)
        attempt = storage.UnsealAttempt()
        seen = Snapshot(1, storage.SealConfig(), state, attempt, replicas, self.holders, self.sessions)
        self.duties.judge(seen, self.now)

    def go(self, seconds: float) -> None:
        for _ in range(int(seconds / _EVERY) + 1):
            self.look()

    @property
    def is_late(self) -> bool:
        return "reaper" in self.duties.late_for_safety()


def test_a_duty_that_nobody_holds_is_late_after_its_bound() -> None:
    watched = Watched()
    watched.holders = {"reaper": ("", 7)}
    watched.go(LATE_AFTER - _EVERY)
    assert not watched.is_late
    watched.go(_EVERY)
    assert watched.is_late
    assert watched.duties.all["reaper"].terms == 7


def test_a_duty_that_is_held_and_does_nothing_is_late_however_often_it_is_won() -> None:
    watched = Watched()
    for term in range(int(LATE_AFTER)):
        watched.holders = {"reaper": (f"node-{term % 3}", term)}
        watched.look()
    assert watched.is_late


def test_progress_ends_it_and_is_remembered_when_its_holder_is_gone() -> None:
    watched = Watched()
    watched.go(LATE_AFTER + _EVERY)
    watched.tell(5000)
    watched.look()
    assert not watched.is_late
    watched.sessions.clear()
    watched.look()
    assert watched.duties.all["reaper"].success_ms == 5000


def test_a_new_holder_that_has_done_nothing_yet_does_not_count_as_progress() -> None:
    watched = Watched()
    watched.go(LATE_AFTER)
    watched.tell(0, node="node-2")
    watched.holders = {"reaper": ("node-2", 2)}
    watched.go(_EVERY)
    assert watched.is_late


def test_a_clock_that_jumps_back_makes_no_duty_late() -> None:
    watched = Watched()
    for moment in (10_000_000, 1000, 2000, 3000):
        watched.tell(moment)
        watched.go(LATE_AFTER / 2)
        assert not watched.is_late


def test_a_sealed_cluster_and_a_seal_process_that_was_stopped_find_nobody_late() -> None:
    watched = Watched()
    watched.sealed = True
    watched.go(10 * LATE_AFTER)
    assert not watched.is_late
    watched.sealed = False
    watched.look(gap=10 * LATE_AFTER)
    assert watched.duties.all["reaper"].idle_s <= MOST_GAP_S


def test_a_holder_of_an_older_version_does_its_duty_by_being_in_office() -> None:
    watched = Watched()
    watched.sessions = {"lease/node-1": {}}
    watched.go(2 * LATE_AFTER)
    assert not watched.is_late
    watched.holders = {"reaper": ("", 1)}
    watched.go(2 * LATE_AFTER)
    assert watched.is_late


def test_what_nobody_can_read_makes_no_progress_and_does_no_harm() -> None:
    watched = Watched()
    watched.sessions["lease/node-2"] = {"duties": {"reaper": "soon"}}
    watched.go(LATE_AFTER + _EVERY)
    assert watched.is_late


def test_pods_that_are_gone_are_forgotten_with_the_names_that_they_had() -> None:
    watched = Watched()
    for number in range(50):
        watched.sessions.clear()
        watched.tell(1000 + number, node=f"lease-{number}")
        watched.look()
    assert watched.duties.all["reaper"].told == {"lease-49": 1049}
