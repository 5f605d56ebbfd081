"""Who may hold how many watches of one replica."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from services.kv.watching.open_streams import (
    MOST_OF_A_ROLE,
    MOST_OF_ONE,
    MOST_STREAMS,
    Bounds,
    Streams,
    bounds_of,
)
from strongbox.errors import Overloaded, RateLimited
from strongbox.rpc.request_context import Inbound
from tests.services.kv.support import Kv


def machine(name: object, role: str = "web") -> Bounds:
    return {f"secret-id/{role}-{name}": MOST_OF_ONE, f"approles/{role}": MOST_OF_A_ROLE}


def tenant(name: object) -> Bounds:
    return {f"token/{name}": MOST_OF_ONE}


def held(asked: Iterable[Bounds], streams: Streams, stack: ExitStack) -> int:
    """How many of these are let in."""
    number = 0
    for bounds in asked:
        try:
            stack.enter_context(streams.counted(bounds))
        except (Overloaded, RateLimited):
            continue
        number += 1
    return number


def test_whoever_has_one_credential_holds_sixteen_and_leaves_the_others_theirs() -> None:
    streams = Streams()
    with ExitStack() as stack:
        assert held([machine("stolen")] * 300, streams, stack) == MOST_OF_ONE
        assert held([machine("honest")] * 300, streams, stack) == MOST_OF_ONE


def test_all_of_a_role_hold_half_and_the_other_half_is_for_others() -> None:
    streams = Streams()
    with ExitStack() as stack:
        assert held((machine(n) for n in range(500)), streams, stack) == MOST_OF_A_ROLE
        assert held((tenant(n) for n in range(500)), streams, stack) == MOST_STREAMS - MOST_OF_A_ROLE


def test_a_tree_holds_sixteen() -> None:
    with ExitStack() as stack:
        assert held([tenant("root-made")] * 300, Streams(), stack) == MOST_OF_ONE


def test_what_is_closed_gives_its_place_back() -> None:
    streams = Streams()
    for _ in range(3):
        with ExitStack() as stack:
            assert held((machine(n) for n in range(500)), streams, stack) == MOST_OF_A_ROLE


@pytest.mark.parametrize(
    ("fields", "bounds"),
    [
        ({"accessor": "A" * 24}, {f"token/{'A' * 24}": MOST_OF_ONE}),
        ({"quota": "token/root-of-it"}, {"token/root-of-it": MOST_OF_ONE}),
        ({"quota": "users/alice"}, {"users/alice": MOST_OF_ONE}),
        ({"quota": "approles/web"}, {"approles/web": MOST_OF_ONE}),  # of an earlier version
        ({"quota": "approles/web", "holder": "secret-id/web-1"}, machine(1)),
    ],
)
def test_a_token_is_counted_for_its_tree_or_user_or_for_its_credential_and_role(
    kv: Kv, fields: dict[str, str], bounds: Bounds
) -> None:
    token = kv.add_token(policies=["root"], **fields)
    view = kv.store.view()
    caller = kv.guard.authenticate(view, Inbound(token, "request", "", "", time.monotonic() + 1))
    assert bounds_of(caller) == bounds
