"""docs/errors.md lists every reason, with the codes it has, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from strongbox import errors
from strongbox.errors import StrongBoxError
from strongbox.gateway.replies import REPLIES
from strongbox.rpc.error_mapping import CODES

ROOT = Path(__file__).resolve().parents[2]
# The gateway's transcoder derives the HTTP status from the gRPC code; google/rpc/code.proto says how.
HTTP = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "ABORTED": 409, "RESOURCE_EXHAUSTED": 429, "INTERNAL": 500, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \|", re.MULTILINE)


def test_every_reason_is_documented_with_its_codes() -> None:
    told = {reason: (code, int(http)) for reason, code, http in ROW.findall(_table())}
    assert told == {kind.reason: (kind.kind, HTTP[kind.kind]) for kind in _kinds()}


def test_no_reason_is_documented_twice() -> None:
    reasons = [row[0] for row in ROW.findall(_table())]
    assert len(reasons) == len(set(reasons))


def test_every_kind_has_a_grpc_code_of_the_same_name() -> None:
    assert {kind: code.name for kind, code in CODES.items()} == {kind: kind for kind in HTTP}


def test_the_gateway_answers_with_reasons_that_are_documented() -> None:
    assert {reply.reason for reply in REPLIES} <= {kind.reason for kind in _kinds()}


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = set(re.findall(r"[A-Z]\w+", errors.__doc__ or ""))
    assert {kind.__name__ for kind in _kinds()} <= drawn


def _table() -> str:
    return (ROOT / "docs" / "errors.md").read_text("utf-8")


def _kinds(root: type[StrongBoxError] = StrongBoxError) -> Iterator[type[StrongBoxError]]:
    """Classes of the tree; what tests and services subclass for themselves is not part of it."""
    if root.__module__ == errors.__name__:
        yield root
    for below in root.__subclasses__():
        yield from _kinds(below)
