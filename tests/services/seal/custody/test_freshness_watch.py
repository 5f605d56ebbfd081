"""Proofs that come late, out of order, or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.seal.custody import freshness_watch
from services.seal.custody.freshness_watch import READ_EVERY, Vigil
from services.seal.repository import SealState
from strongbox.store.etcd.errors import Unavailable

_SOON = 10.0  # seconds
UNSEALED = SealState(is_sealed=False, generation=2)
SEALED = SealState(is_sealed=True, generation=3)


class SlowEtcd:
    """Answers every read `late` seconds after it was asked, with `state` as it is then."""

    def __init__(self, late: float, state: SealState = UNSEALED) -> None:
        self.late, self.state, self.fails = late, state, False
        self.asked: list[float] = []
        self.under_way = self.most = 0

    async def range(self, *_: object, deadline: float) -> Any:
        self.asked.append(time.monotonic())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(min(self.late, deadline - time.monotonic()))
        finally:
            self.under_way -= 1
        if self.fails or self.late > freshness_watch._READ_WITHIN:
            raise Unavailable("late")
        return SimpleNamespace(rows=[SimpleNamespace(value=self.state.encode())], revision=1)


class Proofs:
    """Stands for custody: notes what was proved, and when it had been asked for."""

    generation = None

    def __init__(self) -> None:
        self.told: list[tuple[SealState | None, float]] = []

    def prove(self, state: SealState | None, asked: float) -> None:
        self.told.append((state, asked))


class Settled:
    """Stands for the registry; settling may take long."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def settle(self, _: object) -> None:
        await asyncio.sleep(self._seconds)


class Unheld:
    """Stands for what calls a cluster sealed."""

    async def look(self, _: object) -> None:
        return None


def _vigil(etcd: SlowEtcd, proofs: Proofs, registry: Settled | None = None) -> Vigil:
    async def never() -> None:
        raise AssertionError

    parts = cast(Any, etcd), cast(Any, proofs), cast(Any, registry or Settled()), cast(Any, Unheld())
    return Vigil(*parts, never)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SOON):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_late_answer_keeps_nobody_from_asking_again() -> None:
    etcd, proofs = SlowEtcd(1.9), Proofs()
    reading = asyncio.create_task(_vigil(etcd, proofs)._read())
    try:
        await _until(lambda: len(proofs.told) >= 4)
    finally:
        reading.cancel()
    apart = [after[1] - before[1] for before, after in zip(proofs.told, proofs.told[1:], strict=False)]
    assert max(apart) < 1.9  # not one after the other
    assert 3 <= etcd.most <= freshness_watch._READ_WITHIN / READ_EVERY + 1


async def test_an_answer_to_an_older_question_is_passed_over() -> None:
    etcd, proofs = SlowEtcd(0.4), Proofs()
    vigil = _vigil(etcd, proofs)
    older = asyncio.create_task(vigil._ask(time.monotonic()))
    await asyncio.sleep(0.1)
    etcd.late, etcd.state, asked = 0.0, SEALED, time.monotonic()
    assert await vigil._ask(asked)
    etcd.state = UNSEALED
    assert await older
    assert vigil.state == SEALED
    assert proofs.told == [(SEALED, asked)]


async def test_no_proof_waits_for_what_follows_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    etcd, proofs = SlowEtcd(0.0), Proofs()

    async def no_watch() -> None:
        await asyncio.sleep(_SOON)

    vigil = _vigil(etcd, proofs, registry=Settled(_SOON))
    monkeypatch.setattr(vigil, "_watch", no_watch)
    monkeypatch.setattr(vigil, "_expire", no_watch)
    monkeypatch.setattr(vigil, "_after_wipe", no_watch)
    running = asyncio.create_task(vigil.run())
    try:
        await _until(lambda: len(proofs.told) >= 4)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
