"""What is owed is waited for as long as was promised, and told when it does not come."""

from __future__ import annotations

import time

from tests.robustness.goes_on import NEVER, Owed, wait
from tests.support.clients import Refused


def test_an_effect_that_does_not_come_is_told() -> None:
    owed = [
        Owed("a credential is gone", lambda: False, limit=0.1),
        Owed("a checkpoint", lambda: True, limit=0.1),
    ]
    (found,) = wait(owed, lambda: 1.0)
    assert found == "goes on: a credential is gone: not within 0 s"
    assert owed[0].took == NEVER
    assert owed[1].took == 0.0 or owed[1].took < 1.0


def test_time_runs_from_when_it_is_owed_and_is_longer_on_a_busy_machine() -> None:
    later = time.monotonic() + 0.4
    owed = [Owed("soon", lambda: time.monotonic() > later, limit=0.1, since=later - 0.2)]
    assert list(wait(owed, lambda: 8.0)) == []


def test_who_is_not_answered_has_not_seen_it() -> None:
    def seen() -> bool:
        raise Refused("UNAVAILABLE", 503, "", {}, "")

    assert len(list(wait([Owed("something", seen, limit=0.1)], lambda: 1.0))) == 1
