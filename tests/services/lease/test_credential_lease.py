"""The life of a credential's lease, without anything around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.lease import credential_lease
from services.lease.credential_lease import ABANDONED, ACTIVE, INTENT, PENDING, REVOKED
from services.lease.revocation_backoff import Backoff
from strongbox.lease_records.index import KEPT_MS

NOW = 1_700_000_000_000
HOUR = 3_600_000
BACKOFF = Backoff()


def record(state: int, **fields: object) -> credential_lease.Record:
    made = credential_lease.Record(
        id="p" + "0" * 40, state=state, issued_ms=NOW, expires_ms=NOW + HOUR, max_expires_ms=NOW + 2 * HOUR
    )  # type: ignore[call-arg]
    made.MergeFrom(credential_lease.Record(**fields))  # type: ignore[arg-type]
    return made


def test_attempts_follow_after_10_20_and_40_seconds_and_never_later() -> None:
    assert [BACKOFF.after(attempts) for attempts in (1, 2, 3, 4, 5, 1000)] == [
        10_000, 20_000, 40_000, 40_000, 40_000, 40_000,
    ]  # fmt: skip


def test_an_id_has_one_form_and_a_role_s_name_tells_nothing_of_it() -> None:
    name = credential_lease.fresh_id()
    assert credential_lease.is_grant_id(name)
    for wrong in ("", name + "0", name[:-1], name.upper(), "r" + name[1:], name + "\n", "p" + "g" * 40):
        assert not credential_lease.is_grant_id(wrong)
    assert len(credential_lease.username_of(name)) == 19
    assert (
        credential_lease.username_of(name)
        == credential_lease.username_of(name)
        != credential_lease.username_of(credential_lease.fresh_id())
    )
    assert credential_lease.username_of(name).removeprefix("sb_") not in name


@pytest.mark.parametrize(
    ("state", "told"),
    [(INTENT, "ISSUING"), (ACTIVE, "ACTIVE"), (PENDING, "REVOCATION_PENDING"), (ABANDONED, "ABANDONED"),
     (REVOKED, "REVOKED")],
)  # fmt: skip
def test_each_state_has_a_name_and_only_what_is_active_expires(state: int, told: str) -> None:
    assert credential_lease.state_of(record(state), NOW + HOUR - 1) == told
    assert credential_lease.state_of(record(state), NOW + HOUR) == ("EXPIRED" if state == ACTIVE else told)


def test_what_may_have_a_role_is_live_and_what_was_seen_without_is_not() -> None:
    live = {
        state: credential_lease.is_live(record(state))
        for state in (INTENT, ACTIVE, PENDING, ABANDONED, REVOKED)
    }
    assert live == {INTENT: True, ACTIVE: True, PENDING: True, ABANDONED: True, REVOKED: False}
    assert not credential_lease.is_live(record(ABANDONED, seen_absent=True))
    assert not credential_lease.is_live(None)


def test_each_state_is_looked_at_when_something_is_to_be_done() -> None:
    assert credential_lease.due_ms(record(INTENT)) == NOW + credential_lease.INTENT_MS
    assert credential_lease.due_ms(record(ACTIVE)) == NOW + HOUR
    assert credential_lease.due_ms(record(PENDING, next_ms=NOW + 7)) == NOW + 7
    assert credential_lease.due_ms(record(ABANDONED, next_ms=NOW + 7)) == NOW + 7
    assert credential_lease.due_ms(record(REVOKED, revoked_ms=NOW + 7)) == NOW + 7 + KEPT_MS


@given(st.integers(NOW - HOUR, NOW + 5 * HOUR))
def test_a_renewal_never_moves_back_nor_beyond_the_last_moment(asked: int) -> None:
    renewed = credential_lease.renewed(record(ACTIVE), asked)
    assert NOW + HOUR <= renewed.expires_ms <= NOW + 2 * HOUR
    assert credential_lease.renewed(renewed, NOW).expires_ms == renewed.expires_ms


def test_whoever_wants_an_end_has_it_due_now_and_what_has_ended_stays() -> None:
    pending = credential_lease.wanted(record(ACTIVE), NOW)
    assert (pending.state, pending.next_ms) == (PENDING, credential_lease.AT_ONCE)
    waiting = record(PENDING, next_ms=NOW + 40_000, attempts=5)
    assert credential_lease.wanted(waiting, NOW).next_ms == credential_lease.AT_ONCE
    abandoned = credential_lease.wanted(record(INTENT), NOW)
    assert (abandoned.state, abandoned.abandoned_ms, abandoned.next_ms) == (
        ABANDONED,
        NOW,
        credential_lease.AT_ONCE,
    )
    for state in (ABANDONED, REVOKED):
        assert credential_lease.wanted(record(state, next_ms=3), NOW) == record(state, next_ms=3)


def test_an_attempt_says_when_the_next_is_due_before_it_does_anything() -> None:
    first = credential_lease.begun(record(ACTIVE), NOW, BACKOFF)
    assert (first.state, first.attempts, first.next_ms) == (PENDING, 1, NOW + 10_000)
    second = credential_lease.begun(first, NOW, BACKOFF)
    assert (second.attempts, second.next_ms) == (2, NOW + 20_000)
    told = credential_lease.failed(second, "x" * 1000)
    assert (told.state, len(told.last_error)) == (PENDING, credential_lease.MAX_ERROR)
    assert credential_lease.begun(told, NOW, BACKOFF).last_error  # kept until it succeeds
    ended = credential_lease.ended(told, NOW)
    assert ended is not None
    assert (ended.state, ended.revoked_ms, ended.last_error, ended.next_ms) == (REVOKED, NOW, "", 0)


def test_an_abandoned_intent_is_looked_for_every_minute_for_an_hour_and_then_forgotten() -> None:
    here, looks = credential_lease.begun(record(INTENT), NOW, BACKOFF), 0
    now = NOW
    while True:
        after = credential_lease.ended(here, now)
        if after is None:
            break
        assert after.seen_absent
        assert not credential_lease.is_live(after)
        now = credential_lease.due_ms(after)
        here, looks = credential_lease.begun(after, now, BACKOFF), looks + 1
        assert here.next_ms - now == credential_lease.LOOK_AGAIN_MS
    assert (looks, now - NOW) == (60, credential_lease.WATCHED_MS)


def test_a_role_that_was_made_late_counts_and_has_to_go_at_once() -> None:
    looked_for = credential_lease.ended(credential_lease.begun(record(INTENT), NOW, BACKOFF), NOW)
    assert looked_for is not None
    late = credential_lease.made_late(looked_for)
    assert (late.state, credential_lease.is_live(late), credential_lease.due_ms(late)) == (
        ABANDONED,
        True,
        credential_lease.AT_ONCE,
    )
    assert late.abandoned_ms == looked_for.abandoned_ms


def test_no_change_touches_the_record_it_is_made_from() -> None:
    before = record(ACTIVE)
    for change in (
        credential_lease.renewed(before, NOW + 2 * HOUR), credential_lease.wanted(before, NOW),
        credential_lease.begun(before, NOW, BACKOFF), credential_lease.failed(before, "x"),
        credential_lease.ended(before, NOW),
    ):  # fmt: skip
        assert change != before
    assert before == record(ACTIVE)


def test_what_has_to_end_is_due_by_any_clock_however_fast_that_of_who_says_so_is() -> None:
    fast = NOW + 24 * HOUR
    for ending in (
        credential_lease.wanted(record(ACTIVE), fast),
        credential_lease.wanted(record(INTENT), fast),
    ):
        assert credential_lease.due_ms(ending) < NOW
    late = credential_lease.made_late(record(ABANDONED, seen_absent=True, next_ms=fast))
    assert (credential_lease.due_ms(late) < NOW, late.seen_absent) == (True, False)
