"""Questions for keys: who is kept waiting for an unsealing, and who is not."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.seal.custody.held_keys import Custody
from services.seal.key_stream import KeyStream
from services.seal.key_terms.keyring_refresh import Refresher
from services.seal.key_terms.wrap_counter import Wraps
from services.seal.repository import SealState
from strongbox.clock import ManualClock
from strongbox.crypto.memory_protection import LockedBytes
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from tests.services.seal.unsealing.test_initialize import opened
from tests.services.seal.worlds import World

SEALED, UNSEALED = SealState(is_sealed=True, generation=1), SealState(is_sealed=False, generation=2)


def hold(custody: Custody) -> None:
    custody.hold(LockedBytes(b"r" * 32), opened(World()), 2, ManualClock().monotonic())


async def asked(custody: Custody, state: SealState | None, *, wait: bool) -> tuple[str, float]:
    """Why the record keys are refused, and after how many seconds."""
    started = time.monotonic()
    request = pb.StreamKeysRequest(id=1, record_keys=True, wait=wait)
    # No etcd is needed for record keys: nothing is counted, and no unknown term asked for.
    nothing: Any = None
    stream = KeyStream(custody, Refresher(nothing, custody), Wraps(nothing, "node-1"))
    answer = await stream.answer("kv", request, state)
    assert bool(answer.record_keys) != bool(answer.error)
    return answer.error, time.monotonic() - started


@pytest.mark.parametrize("state", [SEALED, None])
async def test_who_waits_while_sealed_is_answered_as_soon_as_the_keys_are_there(
    state: SealState | None,
) -> None:
    custody = Custody(ManualClock())
    asyncio.get_running_loop().call_later(0.1, hold, custody)
    error, took = await asked(custody, state, wait=True)
    assert (error, took < 0.25) == ("", True)


async def test_the_wait_ends_before_the_callers_patience() -> None:
    error, took = await asked(Custody(ManualClock()), SEALED, wait=True)
    assert error == "SEALED"
    assert 0.3 < took < 0.45


async def test_nobody_waits_for_a_replica_that_alone_has_no_key() -> None:
    error, took = await asked(Custody(ManualClock()), UNSEALED, wait=True)
    assert (error, took < 0.2) == ("SEALED", True)


async def test_who_has_keys_hears_of_a_sealing_without_a_wait() -> None:
    custody = Custody(ManualClock())
    hold(custody)
    custody.wipe()
    error, took = await asked(custody, SEALED, wait=False)
    assert (error, took < 0.2) == ("SEALED", True)
    error, took = await asked(custody, SEALED, wait=True)
    assert took > 0.3, "what was opened before the wipe counts no more"


async def test_who_knows_a_newer_term_gets_no_record_keys_of_a_replica_that_is_behind() -> None:
    """It would take him back to a term that is about to be retired."""
    custody = Custody(ManualClock())
    hold(custody)
    looks: Any = SimpleNamespace(look=lambda: asyncio.sleep(0, result=False))
    stream = KeyStream(custody, looks, Wraps(cast("Any", None), "node-1"))
    term = custody.keyring().term
    for asked_for, error in ((term, ""), (term + 1, "DEPENDENCY_DOWN")):
        request = pb.StreamKeysRequest(id=1, record_keys=True, term=asked_for)
        assert (await stream.answer("kv", request, UNSEALED)).error == error
