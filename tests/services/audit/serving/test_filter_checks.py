"""Filters that nothing can match are refused; every operation that anything records may be asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.audit.serving.filter_checks import OPS, require_possible
from strongbox.errors import InvalidInput
from tests.services.audit.log.test_query import asked

_ROOT = Path(__file__).parents[4]
# The places where the name of an operation stands as text.
_NAMED = re.compile(
    r"""(?: Draft\(op= | draft_of\([a-z_.()]+,\s* | _draft\( | \bOP\b[^=\n]*=\s*[^"\n]*
    | OP,\ [A-Z_]+\ =\ "\w+",\s*)
        "([A-Z]\w+)" """,
    re.VERBOSE,
)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"op": "writesecret"}, "did you mean WriteSecret"),
        ({"op": "ReadSecrt"}, "did you mean ReadSecret"),
        ({"op": "Zzzzzz"}, "no operation"),
        ({"outcome": "REFUSED"}, "ok or refused"),
        ({"path": "/secret/app"}, "slash"),
        ({"path_prefix": "/secret"}, "slash"),
    ],
)
def test_a_filter_that_cannot_match_is_refused(fields: dict[str, str], hint: str) -> None:
    with pytest.raises(InvalidInput, match=hint):
        require_possible(asked(**fields))


def test_what_is_recorded_may_be_asked_for() -> None:
    found = set()
    for file in [*(_ROOT / "services").rglob("*.py"), *(_ROOT / "strongbox").rglob("*.py")]:
        found |= set(_NAMED.findall(file.read_text()))
    assert {"EndCredential", "PeerUnseal", "CountUnauthenticated", "WatchSecrets"} <= found
    assert found <= OPS
    for op in OPS:
        require_possible(asked(op=op, outcome="refused", path="secret/app"))
