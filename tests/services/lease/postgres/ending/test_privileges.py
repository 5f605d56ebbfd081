"""In which order privileges are taken back. (What that does to a server: test_resisting.py.)"""

from __future__ import annotations

import pytest

from services.lease.postgres.ending import privileges


@pytest.mark.parametrize("word", ["TABLE", "SEQUENCE", "ROUTINE", "TYPE"])
def test_a_schema_is_closed_to_a_role_after_what_it_granted_inside_is_taken_back(word: str) -> None:
    """Who may not look into s can take nothing of s.t back; so the grant, and the role, would stay."""
    order = list(privileges._HOLDERS)
    assert order.index(word) < order.index("SCHEMA")
