"""The outbox's bound: refuses when full, takes again when trimmed."""

from __future__ import annotations

import pytest

from strongbox.errors import Overloaded
from strongbox.trail.bound import Bound


def test_a_producer_is_stopped_at_its_own_bound_and_goes_on_when_trimmed() -> None:
    bound = Bound(own=10)
    for revision in range(1, 11):
        bound.require_room()
        bound.put(revision, 1)
    with pytest.raises(Overloaded, match="outbox"):
        bound.require_room()
    bound.published(trimmed_to=3, backlog=7)
    bound.require_room()
    bound.put(11, 3)
    with pytest.raises(Overloaded):
        bound.require_room()


def test_everybodys_backlog_stops_a_producer_that_put_nothing() -> None:
    bound = Bound(everybody=100)
    bound.published(trimmed_to=0, backlog=100)
    with pytest.raises(Overloaded):
        bound.require_room()
    bound.published(trimmed_to=0, backlog=99)
    bound.require_room()


def test_batches_without_records_take_no_room() -> None:
    bound = Bound(own=1)
    bound.put(1, 0)
    bound.require_room()
