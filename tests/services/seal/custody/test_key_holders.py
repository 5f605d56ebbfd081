"""Before a cluster is called sealed: who said that it holds a key is asked, though its session has lapsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from services.seal import cluster_overview
from services.seal.cluster_overview import Replica, Snapshot
from services.seal.custody.held_keys import Custody
from services.seal.custody.key_holders import Found, Holders
from strongbox.clock import ManualClock
from strongbox.storage.v1 import seal_records_pb2 as storage


class Asked:
    """Peers that answer as told, by address; who is not named is not there."""

    def __init__(self, answers: Mapping[str, bool | None]) -> None:
        self._answers = answers
        self.addresses: list[str] = []

    async def holds(self, address: str, _: float) -> bool | None:
        self.addresses.append(address)
        return self._answers.get(address, False)


def _holders(
    monkeypatch: pytest.MonkeyPatch, replicas: list[Replica], answers: Mapping[str, bool | None]
) -> tuple[Holders, Asked]:
    shown = Snapshot(1, None, None, storage.UnsealAttempt(), tuple(replicas), {}, {})

    async def take(*_: object) -> Snapshot:
        return shown

    monkeypatch.setattr(cluster_overview, "take", take)
    peers = Asked(answers)
    return Holders(cast(Any, None), cast(Any, peers), Custody(ManualClock()), "node-1"), peers


def _lapsed(node: str) -> Replica:
    """It said that it holds a key; its session is gone."""
    return Replica(node, live=False, holds=False, says_held=True, address=f"{node}:1")


async def test_who_holds_a_key_without_a_session_is_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = [_lapsed("node-1"), _lapsed("node-2"), _lapsed("node-3")]
    holders, peers = _holders(monkeypatch, replicas, {"node-3:1": True})
    assert not await holders.is_shown()
    assert await holders.look() is Found.HELD
    assert sorted(peers.addresses) == ["node-2:1", "node-3:1"]  # the others


async def test_nobody_holds_one_when_all_say_so_or_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    holders, _ = _holders(monkeypatch, [_lapsed("node-2"), _lapsed("node-3")], {"node-2:1": False})
    assert await holders.look() is Found.NOBODY


async def test_who_does_not_answer_may_hold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = [_lapsed("node-2"), _lapsed("node-3")]
    holders, _ = _holders(monkeypatch, replicas, {"node-2:1": False, "node-3:1": None})
    assert await holders.look() is Found.UNKNOWN
    replicas = [_lapsed("node-2")._replace(address="")]  # a record of an older version
    holders, _ = _holders(monkeypatch, replicas, {})
    assert await holders.look() is Found.UNKNOWN


async def test_who_shows_that_it_holds_one_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = [Replica("node-2", live=True, holds=True, says_held=True, address="node-2:1")]
    holders, peers = _holders(monkeypatch, replicas, {})
    assert await holders.is_shown()
    assert await holders.look() is Found.HELD
    assert peers.addresses == []


async def test_who_says_that_it_holds_none_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = [Replica("node-2", live=False, holds=False, says_held=False, address="node-2:1")]
    holders, peers = _holders(monkeypatch, replicas, {"node-2:1": True})
    assert await holders.look() is Found.NOBODY
    assert peers.addresses == []
