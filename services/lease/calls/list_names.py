"""Names of connections and database roles, a page at a time, as far as the caller may read each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from services.lease.guarded_call import Calls
from strongbox.access.guard import Caller
from strongbox.rpc.request_context import Inbound
from strongbox.storage.v1 import auth_records_pb2, lease_records_pb2
from strongbox.store import paging
from strongbox.store.decisions.view import Row, View


async def list_names(
    calls: Calls, inbound: Inbound, op: str, policy_path: Callable[[str], str], prefix: bytes, request: Any
) -> tuple[list[str], str]:
    """The names of records below `prefix`, and the token of the next page, empty after the last.

    `policy_path(name)`: what policies call the record; `policy_path("")`: where listing needs `read`.
    """
    keys, size = calls.guard.lookup.require_keys(), paging.page_size(request.page_size)
    start, end = paging.page_range(keys, prefix, request.page_token)

    def decide(view: View, caller: Caller) -> list[str]:
        caller.require("read", policy_path(""))
        view.fetch(start, end, limit=size)
        view.reveal(lambda rows: [name for name in _names_in(rows) if _is_shown(caller, policy_path(name))])
        return []

    done = await calls.act(inbound, op, policy_path(""), decide)
    return done.value, paging.next_token(keys, prefix, [row.key for row in done.rows], size)


def _names_in(rows: Sequence[Row]) -> Iterator[str]:
    """Names as they were written. MACs are not checked here: whoever reads the record has its MAC checked."""
    for row in rows:
        with suppress(DecodeError):
            body = auth_records_pb2.AuthenticatedRecord.FromString(row.value).body
            # Field 1 of connections and of roles is the name, and only that is read.
            yield lease_records_pb2.NamedRecord.FromString(body).name


def _is_shown(caller: Caller, path: str) -> bool:
    decision = caller.decide("read", path)
    return decision.allowed or not decision.pattern
