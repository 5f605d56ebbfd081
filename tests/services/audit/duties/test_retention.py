"""What is kept, with a real etcd: by request, by rule, never too much; and a peer that comes after it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from services.audit.duties import retention as retention_module
from services.audit.duties.retention import Retention, Room, Rule
from services.audit.following.replica import Replica
from services.audit.log.archiving import Archive
from services.audit.log.segments import Segments
from services.audit.proofs.checkpoint_publisher import Publisher
from strongbox.config import ConfigError, load
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.following.test_peer_history import serving
from tests.services.audit.logs import chain
from tests.services.audit.producers import Producer, audit_keys, caught_up, following, text_of, until

LIMIT = 20_000  # bytes a segment


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segments.__init__, "__defaults__", (LIMIT,))


async def filled(etcd: Etcd, replica: Replica, kv: Producer, rounds: int) -> int:
    """So many records, a checkpoint of all of them, and the mark there; returns the newest revision."""
    for _ in range(rounds):
        revision = await kv.put(2)
    await caught_up(revision, replica)
    keys = audit_keys()
    await keys.open()
    await Publisher(etcd, replica, keys).publish(replica.position.size, time.monotonic() + 10)
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, replica.position.pack())]))
    return revision


async def retention_of(
    etcd: Etcd, replica: Replica, folder: Path | None, rule: Rule | None = None, **more: Any
) -> Retention:
    keys = audit_keys()
    await keys.open()
    archive = Archive(folder, "node-1") if folder else None
    return Retention(etcd, replica, keys, archive, rule, **more)


async def ask(etcd: Etcd, index: int) -> None:
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_ARCHIVE, b"%d" % index)]))


async def test_what_is_asked_for_goes_and_the_replica_goes_on_and_starts_from_there(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    folder, archive = tmp_path / "1", tmp_path / "archive"
    async with following(etcd, folder, "node-1") as one:
        await filled(etcd, one, kv, 100)
        before = text_of(folder)
        keep = await retention_of(etcd, one, archive)
        await keep.look()
        assert one.log.first == 0  # nobody asked
        await ask(etcd, 120)
        await keep.look()
        assert 0 < one.log.first <= 120 and not keep.warning
        assert text_of(archive) + text_of(folder) == before
        await caught_up(await kv.put(1), one)
        await until(lambda: _reported(etcd, one.log.first), "it is reported")
        assert (await one.reports(time.monotonic() + 5)) == {"node-1": one.log.first}
    async with following(etcd, folder, "node-1") as one:
        await caught_up(await kv.put(2), one)
        assert one.healthy and one.log.first > 0 and one.position.size == 203


async def _reported(etcd: Etcd, first: int) -> bool:
    row = await etcd.get(keyspace.AUDIT_REPLICAS + b"node-1")
    return row is not None and retention_module.Position.parse(row.value).size > 200 and first > 0


async def test_nothing_goes_that_is_not_signed_and_trimmed(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        keep = await retention_of(etcd, one, tmp_path / "archive")
        for _ in range(60):
            revision = await kv.put(2)
        await caught_up(revision, one)
        await ask(etcd, 120)
        await keep.look()
        assert one.log.first == 0  # neither signed nor trimmed
        await filled(etcd, one, kv, 1)
        low = one.log.firsts[1]
        mark = await etcd.get(keyspace.AUDIT_MARK)
        behind = retention_module.Position(low + 1, "0" * 64, 5).pack()
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, behind)]))
        await keep.look()
        assert one.log.first == low  # no further than the mark
        assert mark is not None
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, mark.value)]))
        await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_CHECKPOINT, b"not ours")]))
        await keep.look()
        assert one.log.first == low


async def test_a_new_replica_begins_at_a_peers_marker_and_one_that_lags_sets_aside_what_it_has(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "2", "node-2") as lagging:
        await caught_up(await kv.put(2), lagging)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await filled(etcd, one, kv, 100)
        everything = txn.delete(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))
        await etcd.transact(txn.txn([], [everything]))
        await ask(etcd, 202)
        await (await retention_of(etcd, one, tmp_path / "archive")).look()
        last = await kv.put(1)
        await caught_up(last, one)
        assert one.log.first > 100
        await etcd.compact(last)
        async with (
            serving(one.log) as history,
            following(etcd, tmp_path / "2", "node-2", history) as two,
            following(etcd, tmp_path / "3", "node-3", history) as three,
        ):
            await caught_up(last, two, three)
            assert two.healthy and three.healthy
            assert two.log.first == three.log.first == one.log.first
    for node in ("2", "3"):
        assert text_of(tmp_path / node) == text_of(tmp_path / "1")
        assert (tmp_path / node / "audit.archived").read_bytes() == (
            tmp_path / "1" / "audit.archived"
        ).read_bytes()
    assert list((tmp_path / "2").glob("*.outdated-1"))
    async with following(etcd, tmp_path / "3", "node-3") as three:  # from its own disk
        await caught_up(await kv.put(1), three)
        assert three.healthy


async def test_a_peer_that_still_has_the_lines_is_taken_before_one_that_archived_them(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with (
        following(etcd, tmp_path / "1", "node-1") as one,
        following(etcd, tmp_path / "2", "node-2") as two,
    ):
        last = await filled(etcd, one, kv, 60)
        await caught_up(last, two)
        await ask(etcd, 120)
        await (await retention_of(etcd, one, tmp_path / "archive")).look()
        await etcd.transact(txn.txn([], [txn.delete(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))]))
        last = await kv.put(1)
        await caught_up(last, one, two)
        await etcd.compact(last)
        async with (
            serving(one.log, two.log) as history,
            following(etcd, tmp_path / "3", "node-3", history) as three,
        ):
            await caught_up(last, three)
            assert one.log.first > 0 and three.log.first == 0


async def test_an_archive_that_fails_is_told_and_tried_again(etcd: Etcd, tmp_path: Path) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    (tmp_path / "archive").write_text("a file where a folder belongs")
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await filled(etcd, one, kv, 60)
        keep = await retention_of(etcd, one, tmp_path / "archive")
        await ask(etcd, 120)
        await keep.look()
        assert "cannot be archived" in keep.warning and one.log.first == 0 and one.healthy
        (tmp_path / "archive").unlink()
        await keep.look()
        assert not keep.warning and one.log.first > 0


def test_a_rule_takes_the_oldest_whole_segments(tmp_path: Path) -> None:
    log = Segments(tmp_path)
    log.append(chain(400))
    size = log.kept_bytes
    assert Rule().below(log, 0) == 0 and Rule(limit=2 * size).below(log, 0) == 0
    goes = Rule(limit=size).below(log, 0)
    left = sum(log.path(n).stat().st_size for n, first in log.firsts.items() if first >= goes)
    assert goes in log.firsts.values() and 0.4 * size < left <= 0.6 * size
    assert Rule(limit=1).below(log, 0) == max(log.firsts.values())  # never the one that is written to
    written = 1_769_860_800_000  # when the entries of these tests say they are from
    day = 86_400_000
    assert Rule(days=2).below(log, written + day) == 0
    assert Rule(days=2).below(log, written + 3 * day) == max(log.firsts.values())


async def test_a_disk_or_a_log_at_four_fifths_is_told_without_a_word_to_the_gateway(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = Producer(etcd, "kv", "a" * 16)
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await filled(etcd, one, kv, 20)
        size = one.log.kept_bytes
        room = [Room(0.5, 0.0)]
        monkeypatch.setattr(Room, "of", lambda *_: room[0])
        keep = await retention_of(etcd, one, None)
        for found, said in ((Room(0.79, 0), ""), (Room(0.81, 0), "disk"), (Room(0.1, 0.8), "size")):
            room[0] = found
            await keep.look()
            assert (said in keep.warning) and bool(said) == bool(keep.warning)
        assert one.healthy
        monkeypatch.undo()
        assert Room.of(one.log, size * 2).allowed == 0.5 and 0 < Room.of(one.log, 0).disk < 1


def test_a_rule_without_an_archive_is_refused() -> None:
    environ = {
        "STRONGBOX_NODE_ID": "n", "STRONGBOX_ETCD_ENDPOINTS": "e", "STRONGBOX_TLS_CERT": "c",
        "STRONGBOX_TLS_KEY": "k", "STRONGBOX_TLS_CA": "a", "STRONGBOX_AUDIT_KEEP_DAYS": "30",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="nothing is thrown away"):
        load("audit", environ)
    assert load("audit", {**environ, "STRONGBOX_AUDIT_ARCHIVE": "/archive"}).audit_keep_days == 30
