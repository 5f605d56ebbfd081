"""Time that is passed in."""

from __future__ import annotations

import time

from strongbox.clock import ManualClock, SystemClock


def test_the_systems_clock_tells_milliseconds_since_the_epoch() -> None:
    before = time.time() * 1000
    assert before - 1 <= SystemClock().now_ms() <= time.time() * 1000 + 1


def test_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    seen = [clock.monotonic() for _ in range(1000)]
    assert seen == sorted(seen)


def test_time_that_passes_moves_both_clocks() -> None:
    clock = ManualClock(now_ms=5_000)
    before = clock.monotonic()
    clock.advance(1.5)
    assert clock.now_ms() == 6_500
    assert clock.monotonic() - before == 1.5


def test_a_wall_clock_that_jumps_does_not_move_monotonic_time() -> None:
    clock = ManualClock(now_ms=5_000)
    before = clock.monotonic()
    clock.jump(-3.0)
    assert clock.now_ms() == 2_000
    assert clock.monotonic() == before
