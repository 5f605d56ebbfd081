"""How often the keeper acts; and when nobody measures: it is told, reading goes on, a lie cancels nothing."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.store import keyspace
from strongbox.store.decisions.batch_txn import PartAnswer
from strongbox.store.decisions.cache import Fact, Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.space_check import SpaceCheck
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Item, Work
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import MemberStatus
from strongbox.store.etcd.errors import Unavailable
from strongbox.store.space import admission, room_keeper
from strongbox.store.space.admission import Effect, Room, Space
from strongbox.store.space.room_keeper import Keeper, Measured

QUOTA = 1000


class Member:
    """An etcd whose alarm is raised and whose one member may be silent."""

    def __init__(self) -> None:
        self.is_silent = False
        self.defragmented = self.compacted = 0

    async def status(self, _: str) -> MemberStatus:
        if self.is_silent:
            raise Unavailable("no answer")
        return cast("MemberStatus", type("Status", (), {"revision": 5, "db_size": QUOTA, "in_use": QUOTA}))

    async def is_full(self) -> bool:
        return True

    async def get(self, _: bytes) -> None:
        return None

    async def compact(self, _: int) -> None:
        self.compacted += 1

    async def transact(self, *_: Any, **__: Any) -> txn.TxnResponse:
        return txn.TxnResponse()

    async def run(self) -> None:
        self.defragmented += 1


def keeper(member: Member, told: list[str]) -> Keeper:
    return Keeper(cast("Any", member), ["one"], QUOTA, "me", cast("Any", member), told.append)


async def test_that_no_member_tells_its_status_is_trouble_until_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member, told = Member(), list[str]()
    keeps = keeper(member, told)
    member.is_silent = True
    await keeps.look()
    assert told == []
    monkeypatch.setattr(room_keeper, "SILENT", 0.0)
    await keeps.look()
    await keeps.look()
    assert told == [room_keeper.UNMEASURED]
    monkeypatch.setattr(room_keeper, "SILENT", 10.0)
    member.is_silent = False
    await keeps.look()
    assert told == [room_keeper.UNMEASURED, ""]


async def test_an_alarm_that_stays_does_not_defragment_in_every_pass() -> None:
    member = Member()
    keeps = keeper(member, [])
    await keeps.look()
    for _ in range(3):
        await keeps.make_room(Measured(True, QUOTA, QUOTA, 5))
    assert member.defragmented == 1


async def test_who_does_not_reach_every_member_of_a_full_etcd_lets_others_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: the keeper reached its own member only, and switched off for minutes what the others raised."""
    seconds = [0.0]
    monkeypatch.setattr(room_keeper, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    class Apart(Member):
        async def status(self, endpoint: str) -> MemberStatus:
            self.is_silent = endpoint == "two"
            return await super().status(endpoint)

    apart = Apart()
    keeps = Keeper(cast("Any", apart), ["one", "two"], QUOTA, "me", cast("Any", apart))
    measures = list[bool]()
    for _ in range(46):
        measures.append(await keeps.look() is not None)
        seconds[0] += 1.0
    assert measures == [False] * 15 + [True] * 15 + [False] * 15 + [True]
    alone = keeper(Member(), [])
    assert all([await alone.look() is not None for _ in range(3)])


async def test_history_goes_every_two_seconds_while_little_room_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a minute one caller's writes would be more history than there is room for."""
    seconds = [0.0]
    monkeypatch.setattr(room_keeper, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    member = Member()
    keeps = keeper(member, [])
    await keeps.look()
    for _ in range(20):
        await keeps.make_room(Measured(False, 600, 600, 5))
        seconds[0] += 1.0
    assert member.compacted == 10
    await keeps.make_room(Measured(False, 590, 590, 5))
    assert member.compacted == 10


def test_what_was_measured_long_ago_refuses_growth_and_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    known, old = Space(QUOTA), Room(5, 900, 900, QUOTA, "dead")
    assert known.refuses(Effect.NEUTRAL, old)
    monkeypatch.setattr(admission, "STALE", 0.0)
    assert not known.refuses(Effect.NEUTRAL, old)
    assert known.refuses(Effect.GROWS, old)


def test_what_one_process_has_put_without_a_measurement_refuses_no_reading_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Space(QUOTA)
    known.put(7, QUOTA)
    monkeypatch.setattr(admission, "STALE", 0.0)
    assert not known.refuses(Effect.NEUTRAL, admission.NOTHING_KNOWN)
    assert known.refuses(Effect.GROWS, admission.NOTHING_KNOWN)


def test_a_burst_between_two_measurements_counts_three_times_for_growth_and_once_for_reading() -> None:
    known, measured = Space(QUOTA), Room(5, 500, 500, QUOTA, "keeper")
    known.put(7, 300)
    assert known.refuses(Effect.GROWS, measured)
    assert not known.refuses(Effect.NEUTRAL, measured)
    known.put(8, 60)
    assert known.refuses(Effect.NEUTRAL, measured)


def test_free_pages_inside_the_file_are_for_reading_and_for_no_growth() -> None:
    known, fragmented, packed = Space(QUOTA), Room(5, 950, 700, QUOTA, "k"), Room(5, 950, 849, QUOTA, "k")
    assert not known.refuses(Effect.NEUTRAL, fragmented)
    assert known.refuses(Effect.GROWS, fragmented)
    assert known.refuses(Effect.NEUTRAL, packed._replace(in_use=851))
    assert not known.refuses(Effect.NEUTRAL, packed)
    assert known.refuses(Effect.NEUTRAL, packed._replace(file=948, in_use=849))
    assert known.refuses(Effect.NEUTRAL, fragmented._replace(file=970))


def test_a_measurement_from_the_future_cancels_nothing_that_was_counted() -> None:
    known, memory = Space(QUOTA), Memory()
    known.put(8, QUOTA)
    now = time.monotonic()
    memory.learn(keyspace.ROOM, Fact(Room(99, 10, 10, QUOTA, "liar").pack(), 9), 9, now)
    assert SpaceCheck(memory, known).refuses(Effect.GROWS, now)


async def test_a_read_whose_part_fails_twice_by_others_is_alone_from_then_on() -> None:
    memory = Memory()
    for key in (b"hot", b"cold"):
        memory.learn(key, Fact(b"x", 3), 3, time.monotonic())
    pipeline = Pipeline(cast("Any", None), memory, Outbox("kv"), SystemClock())

    def reading(key: bytes) -> Item:
        def decide(view: View) -> bytes | None:
            return view.get(key).value

        return Item(Work(decide, None, time.monotonic() + 5))

    bystander, revision = reading(b"cold"), 3
    for expected in (False, True):
        hot = reading(b"hot")
        await pipeline._decider.decide([hot, bystander])
        decided = bystander.decided
        assert decided is not None
        assert not decided.alone
        revision += 1
        told = PartAnswer(False, found={b"hot": Fact(b"y", revision), b"cold": Fact(b"x", 3)})
        pipeline._settle([hot, bystander], told, revision, time.monotonic())
        assert bystander.decided is decided
        assert decided.alone is expected
        pipeline._take()
