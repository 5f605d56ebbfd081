"""Logs that somebody damaged or altered, on disk or in etcd: noticed, mended from what is proved, or said."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.audit.following.replica import Position, Replica
from services.audit.log.segments import Segments
from services.audit.proofs.checkpoint_publisher import Publisher
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.logs import chain
from tests.services.audit.producers import (
    audit_keys,
    caught_up,
    following,
    put_some,
    text_of,
    two,
    until,
)


async def sign_all(etcd: Etcd, replica: Replica) -> None:
    keys = audit_keys()
    await keys.open()
    await Publisher(etcd, replica, keys).publish(replica.position.size, time.monotonic() + 10)


@pytest.mark.parametrize("hashes", ["as they were", "recomputed", "gone"])
async def test_an_entry_changed_on_disk_is_set_aside_and_had_again(
    etcd: Etcd, tmp_path: Path, hashes: str
) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    folder = tmp_path / "1"
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
        await sign_all(etcd, replica)
    (file,) = folder.glob("*.jsonl")
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines[5] = lines[5].replace(b"alice", b"mally", 1)
    file.write_bytes(b"".join(lines))
    if hashes != "as they were":
        (folder / "audit.hashes").unlink()
    if hashes == "recomputed":  # somebody who knows how; only the signed checkpoint tells
        Segments(folder).close()
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
        assert replica.healthy
    assert text_of(folder) == whole
    assert [aside.read_bytes() for aside in folder.glob("*.damaged-*")] == [b"".join(lines)]


async def test_hashes_that_are_wrong_are_made_anew_and_no_entry_is_touched(
    etcd: Etcd, tmp_path: Path
) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    folder = tmp_path / "1"
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
    row = bytearray((folder / "audit.hashes").read_bytes())
    right = bytes(row)
    row[100] ^= 1
    (folder / "audit.hashes").write_bytes(row)
    whole = text_of(folder)
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
    assert text_of(folder) == whole
    assert (folder / "audit.hashes").read_bytes() == right
    assert not list(folder.glob("*.damaged-*"))


async def test_a_second_history_under_our_own_key_stops_the_replica(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)
    forged = Segments(tmp_path / "forged")
    forged.append(chain(12))  # every HMAC is right
    forged.close()
    (file,) = (tmp_path / "1").glob("*.jsonl")
    text = (tmp_path / "forged" / file.name).read_bytes()
    file.write_bytes(text)
    (tmp_path / "1" / "audit.hashes").unlink()
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await until(lambda: not replica.healthy, "the change is noticed")
    assert text_of(tmp_path / "1") == text


async def test_a_log_shorter_than_was_reported_is_checked_before_it_is_gone_on_from(
    etcd: Etcd, tmp_path: Path
) -> None:
    """Whoever edits an entry can cut off the end as well, so that nothing known is left to contradict."""
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 3)
    folder = tmp_path / "1"
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
        await until(lambda: replica.log.size > 0, "it is written")
        reported = keyspace.AUDIT_REPLICAS + b"node-1"
        await eventually(etcd, reported, replica.position.size)
    (file,) = folder.glob("*.jsonl")
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines[5] = lines[5].replace(b"alice", b"mally", 1)
    file.write_bytes(b"".join(lines[:-1]))
    (folder / "audit.hashes").unlink()
    async with following(etcd, folder, "node-1") as replica:
        await caught_up(revision, replica)
        assert replica.healthy
    assert text_of(folder) == whole
    assert list(folder.glob("*.damaged-*"))


async def test_what_somebody_altered_in_etcd_is_trouble_and_ends_nothing(etcd: Etcd, tmp_path: Path) -> None:
    kv, auth = two(etcd)
    await etcd.transact(txn.txn([], [txn.put(keyspace.AUDIT_MARK, b"\xff not a mark")]))
    revision = await put_some(kv, auth, 1)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await until(lambda: "not ours" in replica.trouble, "it is told")
        await etcd.transact(txn.txn([], [txn.delete(keyspace.AUDIT_MARK)]))
        await caught_up(revision, replica)
        assert replica.healthy


async def eventually(etcd: Etcd, report: bytes, size: int) -> None:
    """Until the replica's report in etcd has so many entries."""
    while True:
        row = await etcd.get(report)
        if row is not None and Position.parse(row.value).size >= size:
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "damage", ["remove", "replace", "truncate", "grow", "rewrite", "rewrite, time put back"]
)
async def test_a_damaged_file_is_noticed_while_nothing_happens(
    etcd: Etcd, tmp_path: Path, damage: str
) -> None:
    kv, auth = two(etcd)
    revision = await put_some(kv, auth, 2)
    async with following(etcd, tmp_path / "1", "node-1") as replica:
        await caught_up(revision, replica)
        assert replica.healthy
        (file,) = (tmp_path / "1").glob("*.jsonl")
        if damage == "remove":
            file.unlink()
        elif damage == "replace":
            (tmp_path / "copy").write_bytes(file.read_bytes())
            os.replace(tmp_path / "copy", file)
        elif damage.startswith("rewrite"):
            left = file.stat()
            with file.open("r+b") as stream:
                stream.seek(text_of(tmp_path / "1").index(b"alice"))
                stream.write(b"mally")
            if damage != "rewrite":
                os.utime(file, ns=(left.st_atime_ns, left.st_mtime_ns))
        elif damage == "truncate":
            os.truncate(file, 100)
        else:
            with file.open("ab") as stream:
                stream.write(b"more\n")
        await until(lambda: not replica.healthy, f"{damage} is noticed")
