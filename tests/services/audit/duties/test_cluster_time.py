"""How far the cluster's time may be moved."""

from __future__ import annotations

from services.audit.duties.cluster_time import Begun, next_time


def test_time_never_goes_back_and_follows_the_holders_monotonic_clock() -> None:
    assert next_time(1000, 900, None) == 1000
    assert next_time(1000, 5000, None) == 5000
    assert next_time(1000, 900, 50) == 1000
    assert next_time(1000, 5000, 50) == 1050
    assert next_time(1000, 1020, 50) == 1020


def test_time_that_was_lost_while_the_clock_was_behind_is_made_up_and_no_more() -> None:
    """With 3 s lost for good, every node's clock would look 3 s wrong until another takes the duty over."""
    begun = Begun(10_000, 50.0)
    known, moment = 10_000, 50.0
    for clock in (11_000, -33_000, -32_000, -31_000, 15_000, 16_000, 61_000):
        moment += 1.0
        known = next_time(known, clock, begun.allowance(moment, known))
    assert known == 17_000  # seven seconds after ten, whatever the clock said meanwhile


def test_at_takeover_a_clock_that_is_far_ahead_of_the_others_is_not_believed() -> None:
    day = 86_400_000
    assert next_time(1000, day, None, [2000, day, 3000]) == 3000 + 6000
    assert next_time(1000, 5000, None, [2000, 5000, 3000]) == 5000
    assert next_time(1000, 500, None, [2000, 500, 3000]) == 1000
