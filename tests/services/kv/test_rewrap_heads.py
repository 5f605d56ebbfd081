"""Rewrapping over a real etcd: beside writers, with lost answers, forged records, deposed holders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.kv.rewrap_heads import KINDS
from strongbox.access.authenticated_records import open_record, seal_record
from strongbox.clock import ManualClock, SystemClock
from strongbox.crypto.envelope import WrappedDek
from strongbox.crypto.record_keys import RecordKeys
from strongbox.rewrap import rewrap_duty, rewrap_kinds
from strongbox.rewrap.rewrap_duty import Rewrap
from strongbox.rewrap.rewrap_kinds import Inner, Kind
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2, lease_records_pb2
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.duties.election import Deposed, Term
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd
from tests.services.kv.test_over_etcd import Replica
from tests.support.access import FakeCluster
from tests.support.etcd import EtcdCluster
from tests.support.keys import FakeKeyClient

OFFICE = keyspace.election("kv", "rewrap-kv")
CURSOR = keyspace.REWRAPS["kv"]


class World:
    """One kv replica, its keys, and the office of the duty."""

    def __init__(self, member: EtcdCluster) -> None:
        self.cluster = FakeCluster()
        self.replica = Replica(member.endpoints, self.cluster)
        self.etcd = self.replica.etcd
        self.keys: FakeKeyClient = self.replica.servicer._data_keys._keys  # type: ignore[assignment]

    async def put(self, key: bytes, value: bytes) -> int:
        reply = await self.etcd.transact(txn.txn([], [txn.put(key, value)]), idempotent=True)
        return int(reply.header.revision)

    async def office(self) -> Term:
        """A new term: whoever had the office is out."""
        return Term(1, OFFICE, await self.put(OFFICE, b"1 node-1"))

    async def rotate(self) -> None:
        """The next term is in use, as the seal service would have it."""
        known = self.keys.record_keys
        assert known is not None
        term = known.newest + 1
        self.keys.record_keys = replace(
            known, by_term={**known.by_term, term: bytes([term]) * 32}, newest=term
        )
        await self.put(keyspace.SEAL_STATE, b"unsealed:1:%d" % term)

    def duty(self, etcd: Etcd | None = None, kinds: Sequence[Kind] = KINDS) -> Rewrap:
        return Rewrap(etcd or self.etcd, self.keys, SystemClock(), "kv", kinds)

    async def rows(self, prefix: bytes) -> dict[bytes, bytes]:
        found = await self.etcd.range(prefix, keyspace.prefix_end(prefix))
        return {row.key: row.value for row in found.rows}

    async def terms(self) -> set[int]:
        heads = (await self.rows(keyspace.KV_HEADS)).values()
        envelopes = (await self.rows(keyspace.KV_ENVELOPES)).values()
        return {_term(value) for value in heads} | {
            envelope_pb2.Envelope.FromString(value).term for value in envelopes
        }

    async def progress(self) -> storage.RewrapProgress:
        row = await self.etcd.get(CURSOR)
        return storage.RewrapProgress.FromString(row.value if row else b"")


@pytest.fixture
async def world(etcd_member: EtcdCluster) -> AsyncIterator[World]:
    found = World(etcd_member)
    await found.etcd.transact(
        txn.txn([], [txn.delete(keyspace.ROOT, keyspace.prefix_end(keyspace.ROOT))]), idempotent=True
    )
    for key, fact in found.cluster.store.facts.items():
        await found.put(key, fact.value or b"")
    await found.replica.pipeline.start()
    yield found
    await found.replica.pipeline.close()
    await found.etcd.close()


async def fill(world: World, secrets: int, versions: int = 2) -> None:
    for version in range(1, versions + 1):
        await asyncio.gather(
            *(world.replica.write(f"s/{number:03d}", f"{number} {version}") for number in range(secrets))
        )


async def test_everything_is_rewrapped_beside_a_writer_and_read_as_before(world: World) -> None:
    await fill(world, 150)
    first = await world.replica.write("s/000", "repeated", key="mine")
    term, writing = await world.office(), True
    await world.rotate()

    async def write() -> int:
        count = 0
        while writing:
            for number in (3, 70, 149):
                await world.replica.write(f"s/{number:03d}", f"busy {count}")
            count += 1
        return count

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.05)
    assert await world.duty().one_pass(term)
    writing = False
    assert await writer > 0
    assert await world.terms() == {2}
    for number in (1, 75, 148):
        for version in (1, 2):
            assert await world.replica.read(f"s/{number:03d}", version) == f"{number} {version}"
    assert (await world.replica.read("s/149")).startswith("busy")
    progress = await world.progress()
    assert (progress.term, progress.finished, progress.done) == (2, True, progress.total)
    assert progress.done >= 300
    # The same request gets the same answer: its revision was written down when the head changed.
    again = await world.replica.write("s/000", "repeated", key="mine")
    assert (again.version, again.revision) == (first.version, first.revision)
    # Nothing is left to do, and nothing is done.
    revision = (await world.etcd.range(CURSOR)).revision
    assert await world.duty().one_pass(term)
    assert (await world.etcd.range(CURSOR)).revision == revision


async def test_a_write_under_way_when_a_term_comes_into_use_is_made_under_that_term(world: World) -> None:
    """Its data key was wrapped under the old one; a spare key of the old term is not used either."""
    servicer: Any = world.replica.servicer
    key = await servicer._data_keys.take(1e12, b"")
    servicer._data_keys.give_back(key)
    await world.rotate()
    await world.replica.write("late", "x")
    assert await world.terms() == {2}
    assert await world.replica.read("late") == "x"


async def test_a_successor_goes_on_and_who_was_deposed_changes_nothing(world: World) -> None:
    await fill(world, 200, 1)
    early = await world.office()
    await world.rotate()
    stopped = asyncio.create_task(world.duty().one_pass(early))
    while not (await world.progress()).done:
        await asyncio.sleep(0.001)
    stopped.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopped
    half = await world.progress()
    assert 0 < half.done < 400
    late = await world.office()
    before = await world.rows(keyspace.ROOT)
    with pytest.raises(Deposed):
        await world.duty().one_pass(early)
    assert await world.rows(keyspace.ROOT) == before
    assert await world.duty().one_pass(late)
    assert (await world.terms(), (await world.progress()).done) == ({2}, 400)


class Forgetful(Etcd):
    """An etcd whose answers get lost: every transaction is carried out, and then sent again."""

    async def transact(self, request: Any, **named: Any) -> Any:
        await super().transact(request, **named)
        return await super().transact(request, **named)


async def test_lost_answers_change_nothing(world: World, etcd_member: EtcdCluster) -> None:
    await fill(world, 150, 1)
    term = await world.office()
    await world.rotate()
    forgetful = Forgetful(etcd_member.endpoints)
    assert await world.duty(forgetful).one_pass(term)
    assert (await world.terms(), (await world.progress()).done) == ({2}, 300)
    assert await world.replica.read("s/149") == "149 1"
    await forgetful.close()


async def test_what_does_not_open_stays_as_it_is_and_stops_nothing(world: World) -> None:
    await fill(world, 3)
    key = keyspace.envelope("s/001", 1)
    forged = envelope_pb2.Envelope.FromString((await world.rows(key))[key])
    forged.wrapped_dek = bytes(32)
    await world.put(key, forged.SerializeToString())
    junk = keyspace.envelope("s/001", 7)
    await world.put(junk, b"\xff\xff\xff")
    heads = {keyspace.head("aaa-junk"): b"\xff\xff\xff\xff", keyspace.head("aaa-other"): b"k" * 40}
    stolen = (await world.rows(keyspace.head("s/001")))[keyspace.head("s/001")]
    heads[keyspace.head("aaa-stolen")] = stolen
    for place, value in heads.items():
        await world.put(place, value)
    term = await world.office()
    await world.rotate()
    assert await world.duty().one_pass(term)
    assert (await world.rows(key))[key] == forged.SerializeToString()
    assert (await world.rows(junk))[junk] == b"\xff\xff\xff"
    assert {place: (await world.rows(place))[place] for place in heads} == heads
    assert await world.replica.read("s/002", 1) == "2 1"


@pytest.mark.parametrize("named", [3, 99, (1 << 31) - 1])
async def test_what_names_a_key_term_that_never_was_stops_nothing_and_is_counted(
    world: World, named: int
) -> None:
    """Before, its key counted as one that is on its way, and the pass waited for ever."""
    await fill(world, 70)
    forged = {key: _of_term(await world.rows(key), key, named) for key in FORGED}
    forged[HUGE] = envelope_pb2.Envelope(
        term=1, dek_id=bytes(16), wrapped_dek=bytes(1_400_000)
    ).SerializeToString()
    for key, value in forged.items():
        await world.put(key, value)
    term, clock = await world.office(), ManualClock()
    await world.rotate()
    duty = Rewrap(world.etcd, Asked(world.keys), clock, "kv", KINDS)
    with capture_logs() as logs:
        assert await duty.one_pass(term)
    told = await world.progress()
    assert (told.finished, told.done, told.total, told.passed_over) == (True, 210, 210, len(forged))
    clock.advance(rewrap_duty.REST_MS / 1000)
    assert await duty.one_pass(term)  # the second look counts anew
    told = await world.progress()
    assert (told.confirmed, told.passed_over) == (True, len(forged))
    for key, value in forged.items():
        assert (await world.rows(key))[key] == value
    errors = [line for line in logs if line["log_level"] == "error"]
    assert {line["key"].encode() for line in errors} == set(forged) and len(errors) == len(forged)
    assert all(
        set(line) == {"event", "log_level", "key", "why"} for line in errors
    )  # nothing of what they hold
    assert await world.replica.read("s/069", 2) == "69 2"
    now = await world.rows(keyspace.envelope("s/069", 2))
    assert envelope_pb2.Envelope.FromString(now[keyspace.envelope("s/069", 2)]).term == 2


class Asked:
    """Seal, whose messages have at most 4 MiB."""

    def __init__(self, keys: FakeKeyClient) -> None:
        self._keys = keys

    @property
    def record_keys(self) -> RecordKeys | None:
        return self._keys.record_keys

    async def rewrap(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        assert sum(len(one.ciphertext) for one in wrapped) == 32 * len(wrapped)
        return await self._keys.rewrap(wrapped)


FORGED = (keyspace.head("s/001"), keyspace.envelope("s/001", 1), keyspace.envelope("s/002", 2))
HUGE = keyspace.envelope("s/003", 1)


def _of_term(rows: dict[bytes, bytes], key: bytes, term: int) -> bytes:
    """What stands there, made to name another key term."""
    kind: Any = (
        auth_records_pb2.AuthenticatedRecord if key.startswith(keyspace.KV_HEADS) else envelope_pb2.Envelope
    )
    found = kind.FromString(rows[key])
    found.term = term
    return bytes(found.SerializeToString())


async def test_progress_that_nobody_can_read_begins_anew(world: World) -> None:
    await fill(world, 3)
    await world.put(CURSOR, b"\xff\xff\xff")
    term = await world.office()
    await world.rotate()
    assert await world.duty().one_pass(term)
    assert (await world.terms(), (await world.progress()).finished) == ({2}, True)


async def test_records_are_authenticated_anew_with_the_envelope_inside_and_forged_ones_are_not(
    world: World,
) -> None:
    """As of lease's connections: a record whose body holds an envelope."""
    await fill(world, 1, 1)
    prefix = keyspace.ROOT + b"lease/some/"
    body = (await holder(world)).SerializeToString()
    keys = world.cluster.keys
    good, plain, bad = prefix + b"good", prefix + b"plain", prefix + b"bad"
    await world.put(good, seal_record(keys, good, body))
    await world.put(plain, seal_record(keys, plain, b"\x08\x07"))
    await world.put(bad, seal_record(keys, good, body))  # copied from another key

    term = await world.office()
    await world.rotate()
    kind = Kind(prefix, rewrap_kinds.renew_records(Inner(lease_records_pb2.ConnectionRecord, "envelope")))
    assert await world.duty(kinds=[kind]).one_pass(term)
    now = await world.rows(prefix)
    new_keys = world.keys.record_keys
    assert new_keys is not None
    opened = lease_records_pb2.ConnectionRecord.FromString(open_record(new_keys, good, now[good]))
    assert (opened.envelope.term, opened.version) == (2, 7)
    assert open_record(new_keys, plain, now[plain]) == b"\x08\x07"
    assert [_term(now[key]) for key in (good, plain, bad)] == [2, 2, 1]


async def holder(world: World) -> lease_records_pb2.ConnectionRecord:
    """A message of another service that holds an envelope."""
    key = keyspace.envelope("s/000", 1)
    envelope = envelope_pb2.Envelope.FromString((await world.rows(key))[key])
    return lease_records_pb2.ConnectionRecord(envelope=envelope, version=7)


def _term(value: bytes) -> int:
    return auth_records_pb2.AuthenticatedRecord.FromString(value).term


async def test_a_body_that_kept_its_old_envelope_under_a_new_mac_is_found(world: World) -> None:
    await fill(world, 1, 1)
    head = (await holder(world)).SerializeToString()
    await world.rotate()
    keys = world.keys.record_keys
    assert keys is not None
    inner = Inner(lease_records_pb2.ConnectionRecord, "envelope")
    row = KV(b"k", seal_record(keys, b"k", head), 1, 1)
    renewed = await rewrap_kinds.renew_records(inner)([row], world.keys)
    opened = lease_records_pb2.ConnectionRecord.FromString(open_record(keys, b"k", renewed.values[b"k"]))
    assert opened.envelope.term == 2
    plain = await rewrap_kinds.renew_messages(inner)([KV(b"k", head, 1, 1)], world.keys)
    assert lease_records_pb2.ConnectionRecord.FromString(plain.values[b"k"]).envelope.term == 2


async def test_what_came_behind_the_pass_is_found_by_the_second_look(world: World) -> None:
    await fill(world, 5)
    key = keyspace.envelope("s/001", 1)
    late = (await world.rows(key))[key]
    term = await world.office()
    await world.rotate()
    clock = ManualClock()
    duty = Rewrap(world.etcd, world.keys, clock, "kv", KINDS)
    assert await duty.one_pass(term)
    await world.put(key, late)  # by somebody who wrapped before, and asked no guard
    assert await duty.one_pass(term)
    assert (await world.terms(), (await world.progress()).confirmed) == ({1, 2}, False)
    clock.advance(rewrap_duty.REST_MS / 1000)
    assert await duty.one_pass(term)
    assert (await world.terms(), (await world.progress()).confirmed) == ({2}, True)
    assert await world.replica.read("s/001", 1) == "1 1"
    # Nothing is left to do, and nothing is done.
    revision = (await world.etcd.range(CURSOR)).revision
    assert await duty.one_pass(term)
    assert (await world.etcd.range(CURSOR)).revision == revision
