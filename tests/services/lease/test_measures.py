"""What is told of credentials that could not be ended: by the duty, and no longer than it is so."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry

from services.lease import grants
from services.lease.measures import Measures

ONE, TWO = (grants.Record(id="p" + digit * 40) for digit in "12")


class Told:
    """The metrics, and a clock that is moved by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)
        self.registry = CollectorRegistry()
        self.measures = Measures(self.registry, longest_pause=40.0)

    def __call__(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"strongbox_{name}")

    def tried(self, *records: grants.Record, gone: tuple[str, ...] = (), duty: bool = True) -> None:
        self.measures.ended(records, set(gone), 0.1, duty=duty)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def test_the_duty_tells_how_many_wait_and_since_when(told: Told) -> None:
    assert (told("leases_pending"), told("leases_pending_oldest_seconds")) == (0, 0)
    told.tried(ONE)
    told.now += 30
    told.tried(ONE, TWO)
    told.now += 5
    assert (told("leases_pending"), told("leases_pending_oldest_seconds")) == (2, 35)
    told.tried(ONE, gone=(ONE.id,))
    assert (told("leases_pending"), told("leases_pending_oldest_seconds")) == (1, 5)
    assert told("credential_revoke_seconds_count") == 3


def test_a_request_that_fails_counts_for_nobody_but_one_that_succeeds_ends_the_wait(told: Told) -> None:
    told.tried(ONE, duty=False)
    assert told("leases_pending") == 0  # the duty, here or elsewhere, takes it up and tells it
    told.tried(ONE)
    told.tried(ONE, gone=(ONE.id,), duty=False)
    assert told("leases_pending") == 0


def test_what_somebody_else_has_ended_is_forgotten_when_its_next_attempt_is_overdue(told: Told) -> None:
    told.tried(ONE, TWO)
    for _ in range(4):
        told.now += 40
        told.tried(TWO)
    assert (told("leases_pending"), told("leases_pending_oldest_seconds")) == (1, 160)
    told.measures.forget_waiting()
    assert told("leases_pending") == 0
