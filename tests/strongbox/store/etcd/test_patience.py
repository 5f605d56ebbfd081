"""How long an attempt may take, by what earlier ones took."""

from __future__ import annotations

import itertools

from strongbox.store.etcd.patience import MOST, MOST_UNANSWERED, Patience


def test_attempts_double_when_every_member_was_late_in_turn() -> None:
    attempts = list(itertools.islice(Patience(0.4, 3).attempts(reads=False), 12))
    assert attempts == [0.4] * 3 + [0.8] * 3 + [1.6] * 3 + [MOST] * 3


def test_a_slow_answer_makes_the_next_call_wait_twice_as_long_and_quick_ones_are_believed_again() -> None:
    patience = Patience(0.4, 3)
    patience.answered(0.7, reads=False)
    assert patience.attempt(reads=False) == 1.4
    assert patience.attempt(reads=True) == 0.4
    for _ in range(6):
        patience.answered(0.01, reads=False)
    assert patience.attempt(reads=False) == 0.4


def test_nothing_is_waited_for_longer_than_the_most_unless_the_least_is_more() -> None:
    patience = Patience(0.4, 3)
    patience.answered(30.0, reads=True)
    assert patience.attempt(reads=True) == MOST
    assert Patience(5.0, 1).attempt(reads=True) == 5.0
    assert next(Patience(5.0, 1).attempts(reads=False)) == 5.0


def test_calls_too_short_for_a_second_round_get_there_together() -> None:
    patience = Patience(0.4, 3)
    patience.unanswered(reads=False)
    assert patience.attempt(reads=False) == 0.8
    patience.unanswered(reads=False)
    patience.unanswered(reads=False)
    assert patience.attempt(reads=False) == MOST_UNANSWERED
