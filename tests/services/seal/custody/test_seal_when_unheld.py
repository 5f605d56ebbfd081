"""When a cluster is called sealed: once nobody can hold a key, and not by one look."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from services.seal.custody.key_holders import Found
from services.seal.custody.seal_when_unheld import GAP, NOBODY_FOR, UNKNOWN_FOR, SealWhenUnheld
from services.seal.repository import SealState
from strongbox.store import keyspace
from strongbox.store.etcd.errors import EtcdError, Unavailable
from tests.services.seal.worlds import World
from tests.support.pipeline import FakePipeline

UNSEALED = SealState(is_sealed=False, generation=2)


class Looked:
    """Stands for the holders."""

    def __init__(self, found: Found | EtcdError) -> None:
        self.found = found

    async def look(self) -> Found:
        if isinstance(self.found, EtcdError):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "since", "is_sealed"),
    [
        (Found.HELD, 60.0, False),
        (Found.NOBODY, NOBODY_FOR - 1, False),
        (Found.NOBODY, NOBODY_FOR + 0.1, True),
        (Found.UNKNOWN, UNKNOWN_FOR - 1, False),  # it may stand still, with its key
        (Found.UNKNOWN, UNKNOWN_FOR + 0.1, True),
        (Unavailable("away"), 60.0, False),
    ],
)
async def test_a_cluster_is_called_sealed_once_nobody_can_hold_a_key(
    found: Found | EtcdError, since: float, is_sealed: bool
) -> None:
    world = World()
    world.store.seed(keyspace.SEAL_STATE, UNSEALED.encode())
    unheld = SealWhenUnheld(cast(Any, FakePipeline(world.store)), cast(Any, Looked(found)))
    unheld._held_at = time.monotonic() - since
    await unheld.look(UNSEALED)
    assert world.state.is_sealed is is_sealed


async def test_one_look_after_a_time_without_any_says_nothing_of_that_time() -> None:
    world = World()
    world.store.seed(keyspace.SEAL_STATE, UNSEALED.encode())
    unheld = SealWhenUnheld(cast(Any, FakePipeline(world.store)), cast(Any, Looked(Found.NOBODY)))
    unheld._held_at, unheld._looked_at = time.monotonic() - 60, time.monotonic() - GAP - 0.1
    await unheld.look(UNSEALED)
    assert not world.state.is_sealed
    unheld._held_at = time.monotonic() - NOBODY_FOR
    await unheld.look(UNSEALED)
    assert world.state.is_sealed
