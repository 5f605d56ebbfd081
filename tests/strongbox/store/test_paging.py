"""Page sizes and tokens."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import InvalidInput
from strongbox.store import paging

KEYS = RecordKeys({1: b"k" * 32, 2: b"l" * 32}, 2)
OLDER = RecordKeys({1: b"k" * 32}, 1)
PREFIX = b"/strongbox/kv/head/app/"


@given(st.binary(max_size=paging.MAX_POSITION))
def test_a_token_leads_to_the_position_it_was_made_of(position: bytes) -> None:
    token = paging.token_of(KEYS, PREFIX, position)
    assert paging.position_of(KEYS, PREFIX, token) == position
    assert "=" not in token


def test_a_token_tells_nothing_of_its_position_but_its_size_in_steps() -> None:
    token = paging.token_of(KEYS, PREFIX, b"hidden-name\0")
    assert b"hidden" not in base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert paging.token_of(KEYS, PREFIX, b"hidden-name\0") != token
    assert len({len(paging.token_of(KEYS, PREFIX, b"x" * size)) for size in range(paging.STEP - 2)}) == 1


def test_a_token_is_good_for_its_own_listing_only() -> None:
    token = paging.token_of(KEYS, PREFIX, b"a\0")
    with pytest.raises(InvalidInput):
        paging.position_of(KEYS, b"/strongbox/kv/head/zoo/", token)


def test_a_token_made_before_a_rotation_stays_good_and_one_of_an_unknown_term_is_refused() -> None:
    token = paging.token_of(OLDER, PREFIX, b"a\0")
    assert paging.position_of(KEYS, PREFIX, token) == b"a\0"
    with pytest.raises(InvalidInput):
        paging.position_of(OLDER, PREFIX, paging.token_of(KEYS, PREFIX, b"a\0"))


@pytest.mark.parametrize(
    "token",
    ["!", "a", "\u00e9", "a b", "ab=", "+/+/", "x" * 5000, "A" * 40, "AAAAAg" + "A" * 100, "YQA", "_w"],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        paging.position_of(KEYS, PREFIX, token)


def test_a_changed_token_is_refused() -> None:
    token = paging.token_of(KEYS, PREFIX, b"a\0")
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(InvalidInput):
            paging.position_of(KEYS, PREFIX, token[:place] + other + token[place + 1 :])


def test_a_page_has_100_rows_unless_asked_and_at_most_1000() -> None:
    assert [paging.page_size(size) for size in (0, 1, 1000)] == [100, 1, 1000]
    for size in (-1, 1001, 2**31 - 1):
        with pytest.raises(InvalidInput):
            paging.page_size(size)


def test_pages_follow_each_other_without_gap_or_repetition() -> None:
    stored = [PREFIX + name for name in (b"a", b"a\0", b"ab", b"b", b"c", b"\xff")]
    stored.sort()
    seen: list[bytes] = []
    token = ""
    while True:
        start, end = paging.page_range(KEYS, PREFIX, token)
        page = [key for key in stored if start <= key < end][:2]
        seen += page
        token = paging.next_token(KEYS, PREFIX, page, 2)
        if not token:
            break
    assert seen == stored
