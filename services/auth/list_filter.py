"""What a listing shows of the rows it read: a rule on a name that does not grant `list` hides the name.

The listing itself needs `list` on the directory. A name that no rule matches is shown. A rule that matches it
and does not grant `list` hides it, whether it denies or only grants something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from services.auth import policies, tokens
from strongbox.access.guard import Caller
from strongbox.access.record_reader import BUILT_IN
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import Row


def shown_accessors(caller: Caller, rows: Iterable[Row]) -> list[tuple[str, str]]:
    """(accessor, digest) of the tokens whose accessors the caller may see."""
    pairs = ((row.key.removeprefix(keyspace.ACCESSORS).decode(), row.value.decode()) for row in rows)
    return [pair for pair in pairs if _is_shown(caller, f"{tokens.PATH}/{pair[0]}")]


def shown_policies(caller: Caller, rows: Sequence[Row], *, with_built_in: bool) -> list[str]:
    """Names of the policies that the caller may see, as they were written."""
    path = policies.policy_path("")
    built_in = [name for name in sorted(BUILT_IN) if _is_shown(caller, path + name)] if with_built_in else []
    return built_in + shown_names(caller, rows, path, storage.PolicyRecord)


def shown_names(caller: Caller, rows: Iterable[Row], path: str, kind: type[Any]) -> list[str]:
    """Names of records of a kind with a `name`, those that the caller may see below `path`, as written."""
    names = []
    # The MAC is not checked: the name is only shown, and whoever reads the record has it checked.
    for row in rows:
        with suppress(DecodeError):
            body = storage.AuthenticatedRecord.FromString(row.value).body
            names.append(str(kind.FromString(body).name))
    return [name for name in names if _is_shown(caller, path + name)]


def _is_shown(caller: Caller, path: str) -> bool:
    decision = caller.decide("list", path)
    return decision.allowed or not decision.pattern
