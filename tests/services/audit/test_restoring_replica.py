"""A running replica whose marker is lost: over a real etcd it goes on, trims, and is whole again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from services.audit.duties.retention import LOST
from services.audit.following.replica import Replica
from services.audit.log.find_beginning import Copies
from services.audit.log.query import Filter, ascending
from services.audit.log.segments import Segments
from services.audit.proofs.checkpoint_publisher import Publisher
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.archive_marker import Unproven
from strongbox.errors import DependencyDown
from strongbox.store.etcd.client import Etcd
from tests.services.audit.duties.test_audit_duty import on_duty, trimmed_to
from tests.services.audit.duties.test_retention import LIMIT, ask, filled, retention_of
from tests.services.audit.following.test_peer_history import serving
from tests.services.audit.log.test_query import LATER
from tests.services.audit.producers import Producer, audit_keys, caught_up, following, text_of, until
from tests.services.audit.test_servicer_order import Work


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segments.__init__, "__defaults__", (LIMIT,))


async def archived(etcd: Etcd, replica: Replica, kv: Producer, archive: Path) -> None:
    """200 entries, of which some are archived."""
    await filled(etcd, replica, kv, 100)
    await ask(etcd, 120)
    await (await retention_of(etcd, replica, archive)).look()
    assert 0 < replica.log.first <= 120


def lose_the_marker(folder: Path) -> None:
    for name in (markers.NAME, markers.COPY):
        (folder / name).write_bytes(b"")


async def publish(etcd: Etcd, replica: Replica) -> int:
    keys = audit_keys()
    await keys.open()
    _, told = await Publisher(etcd, replica, keys).publish(replica.position.size, time.monotonic() + 10)
    return told.size


async def test_it_goes_on_without_its_marker_and_finds_it_when_the_archive_is_back(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    folder, archive, away = tmp_path / "1", tmp_path / "archive", tmp_path / "away"
    async with following(etcd, folder, "node-1") as one:
        await archived(etcd, one, kv, archive)
        first = one.log.first
    before = text_of(folder)
    lose_the_marker(folder)
    archive.rename(away)
    async with following(etcd, folder, "node-1", copies=Copies(archive)) as one:
        revision = await kv.put(3)
        await caught_up(revision, one)
        assert one.healthy and one.log.first == first and text_of(folder).startswith(before)
        assert len(ascending(one.log, Filter(), first, one.log.size, 1000, LATER).lines) == 203 - first
        async with on_duty(etcd, one):
            await until(trimmed_to(etcd, 203), "it is trimmed as ever")
        with pytest.raises(Unproven):
            await publish(etcd, one)
        work = Work(etcd, tmp_path / "other")
        work.servicer._publisher = Publisher(etcd, one, audit_keys_open := audit_keys())
        await audit_keys_open.open()
        with pytest.raises(DependencyDown, match="others can prove"):
            await work.servicer._signed(203, time.monotonic() + 10)
        keep = await retention_of(etcd, one, archive)
        await keep.look()
        assert keep.warning == LOST  # told in health; the replica goes on serving
        away.rename(archive)
        keep._looks_at = 0.0  # a minute later
        await keep.look()
        assert not keep.warning and one.log.stand_in is None
        await caught_up(await kv.put(1), one)
        assert await publish(etcd, one) == 204  # which contains what was signed before
    async with following(etcd, folder, "node-1") as one:
        await caught_up(await kv.put(1), one)
        assert one.healthy and one.log.first == first and one.log.hashes.is_whole
    assert not list(folder.glob("audit-*.damaged-*"))


async def test_a_peer_says_where_it_begins(etcd: Etcd, tmp_path: Path) -> None:
    """Replicas archive at the same places; without an archive in reach the peer's marker is the copy."""
    kv = Producer(etcd, "kv", "a" * 16)
    async with (
        following(etcd, tmp_path / "1", "node-1") as one,
        following(etcd, tmp_path / "3", "node-3") as whole,
    ):
        async with following(etcd, tmp_path / "2", "node-2") as two:
            await archived(etcd, one, kv, tmp_path / "archive")
            await caught_up(await kv.put(1), two)  # before, it has nothing to archive
            await (await retention_of(etcd, two, tmp_path / "archive")).look()
            assert two.log.first == one.log.first > 0
        await caught_up(await kv.put(1), one, whole)
        lose_the_marker(tmp_path / "2")
        async with serving(whole.log, one.log) as history:
            assert sorted(map(bool, await history.markers())) == [False, True]
            copies = Copies(None, history.markers)
            async with following(etcd, tmp_path / "2", "node-2", copies=copies) as two:
                await caught_up(await kv.put(1), one, two)
                assert two.healthy and two.log.marker == one.log.marker
        assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
        assert await publish(etcd, one) == 203
