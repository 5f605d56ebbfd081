"""What computes for long does so beside the event loop, for few at a time, and looked at again afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from services.seal.ceremonies import ceremony_decisions
from services.seal.ceremonies import ceremony_exchange as ceremonies_module
from services.seal.ceremonies.ceremony_exchange import Ceremonies
from services.seal.keys import root_key
from services.seal.unsealing.share_exchange import Unsealing
from services.seal.worker_thread import AT_ONCE, Computing
from strongbox.errors import InvalidInput, Overloaded
from strongbox.rpc.request_context import Inbound
from strongbox.store import keyspace
from tests.services.seal.key_terms.test_term_decisions import Life
from tests.services.seal.worlds import World
from tests.support.pipeline import FakePipeline

_LOOP = threading.main_thread()


class Spied:
    """Work that notes the thread it is done by, and lets `meanwhile` happen during it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.threads: list[threading.Thread] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, *args: Any) -> Any:
        self.threads.append(threading.current_thread())
        self.meanwhile()
        return self._work(*args)


class NoPeers:
    """Nobody else is there."""

    async def ask_all(self, *_: object) -> list[Any]:
        return []


class Opener:
    """Takes a root key in."""

    is_open = False

    async def open(self, root: bytes, *_: object) -> None:
        assert len(root) == 32
        self.is_open = True


def _soon() -> float:
    return time.monotonic() + 4.5


async def test_shares_are_combined_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    world, opener = World(), Opener()
    spied = Spied(root_key.open_root)
    monkeypatch.setattr(root_key, "open_root", spied)
    unsealing = Unsealing(
        cast(Any, FakePipeline(world.store)),
        cast(Any, NoPeers()),
        cast(Any, None),
        cast(Any, opener),
        Computing(),
    )
    nonce = world.give(1).nonce
    texts = [world.share(index).encode().encode() for index in (1, 2)]
    await unsealing.relayed(nonce, texts, _soon())
    assert opener.is_open
    assert spied.threads
    assert _LOOP not in spied.threads


def _ceremonies(life: Life) -> Ceremonies:
    pipeline = cast(Any, FakePipeline(life.store))
    return Ceremonies(pipeline, cast(Any, NoPeers()), life.custody, Computing())


def _inbound() -> Inbound:
    return Inbound("", "request", "127.0.0.1", "", _soon())


async def test_new_shares_and_a_root_token_are_made_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(shares=3, threshold=2)
    several = [Spied(ceremonies_module.make_shares), Spied(root_key.open_root)]
    monkeypatch.setattr(ceremonies_module, "make_shares", several[0])
    monkeypatch.setattr(ceremonies_module, "open_root", several[1])
    for kind, spied in zip(ceremony_decisions.KINDS, several, strict=True):
        made = _ceremonies(life)
        begun = await made.start(kind, life.share(1), _inbound(), (3, 2))
        done = await made.update(kind, begun.nonce, life.share(2), _inbound())
        assert done.complete
        assert spied.threads
        assert _LOOP not in spied.threads


async def test_a_rekey_that_was_cancelled_while_it_was_computed_proposes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(shares=3, threshold=2)
    spied = Spied(ceremonies_module.make_shares)
    monkeypatch.setattr(ceremonies_module, "make_shares", spied)
    made = _ceremonies(life)
    begun = await made.start(ceremony_decisions.REKEY, life.share(1), _inbound(), (3, 2))
    spied.meanwhile = lambda: (
        life.store.run(lambda view: view.delete(keyspace.ceremony(ceremony_decisions.REKEY))) and None
    )
    with pytest.raises(InvalidInput):
        await made.update(ceremony_decisions.REKEY, begun.nonce, life.share(2), _inbound())
    assert life.store.value(keyspace.ceremony(ceremony_decisions.REKEY)) is None


async def test_few_wait_and_whoever_meets_his_deadline_leaves_nothing_to_be_begun() -> None:
    computing, gate, done = Computing(), threading.Event(), []

    def work(name: int) -> None:
        assert gate.wait(30)
        done.append(name)

    first = asyncio.create_task(computing.run(_soon(), work, 0))
    await asyncio.sleep(0)
    hurried = [
        asyncio.create_task(computing.run(time.monotonic() + 0.05, work, n)) for n in range(1, AT_ONCE)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await computing.run(_soon(), work, 99)
    results = await asyncio.gather(*hurried, return_exceptions=True)
    assert all(isinstance(one, Overloaded) for one in results)
    gate.set()
    await first
    await computing.run(_soon(), work, 5)
    assert done == [0, 5]
