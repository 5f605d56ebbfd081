"""Page sizes and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.errors import InvalidInput
from strongbox.store import paging


@given(st.binary(max_size=paging.MAX_POSITION))
def test_a_token_leads_to_the_position_it_was_made_of(position: bytes) -> None:
    token = paging.token_of(position)
    assert paging.position_of(token) == position
    assert "=" not in token


@pytest.mark.parametrize("token", ["!", "a", "\u00e9", "a b", "ab=", "+/+/", "x" * 5000])
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        paging.position_of(token)


def test_a_page_has_100_rows_unless_asked_and_at_most_1000() -> None:
    assert [paging.page_size(size) for size in (0, 1, 1000, 10_000)] == [100, 1, 1000, 1000]
    with pytest.raises(InvalidInput):
        paging.page_size(-1)
