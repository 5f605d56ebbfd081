"""What is told of credentials that could not be ended: by the duty, and no longer than it is so."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.lease import credential_lease
from services.lease.metrics import Measures

ONE, TWO = (credential_lease.Record(id="p" + digit * 40) for digit in "12")


class Told:
    """The metrics, and a clock that is moved by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)
        self.registry = CollectorRegistry()
        self.measures = Measures(self.registry, longest_pause=40.0)

    def __call__(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"strongbox_{name}")

    def tried(self, *records: credential_lease.Record, gone: tuple[str, ...] = (), duty: bool = True) -> None:
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


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """The interpreter changes threads wherever it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_a_scrape_goes_on_while_the_duty_writes() -> None:
    registry, over, failures = CollectorRegistry(), threading.Event(), list[BaseException]()
    measures = Measures(registry)
    some = [credential_lease.Record(id=f"p{number:040d}") for number in range(400)]

    def scrape() -> None:
        try:
            while not over.is_set():
                registry.get_sample_value("strongbox_leases_pending_oldest_seconds")
        except RuntimeError as error:  # "dictionary changed size during iteration"
            failures.append(error)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    for _ in range(20):
        for one in some:
            measures.ended([one], set(), 0.0, duty=True)
        measures.ended(some, {one.id for one in some}, 0.0, duty=True)
    over.set()
    scraper.join()
    assert not failures
