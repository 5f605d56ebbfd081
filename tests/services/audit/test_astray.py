"""A log that took a true change of keys for a false one is cut back, unless that is what was agreed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.audit.following.position import Position
from services.audit.following.start_position import find_start
from services.audit.log.segments import Segments
from strongbox.audit_log.chain import FIRST_TERM, Keys, parse_line
from strongbox.audit_log.checkpoint import Checkpoint, sign
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.producers import (
    ORIGIN,
    SIGNING,
    Producer,
    audit_keys,
    caught_up,
    following,
    text_of,
    until,
)
from tests.services.audit.test_key_answers import (
    IN_USE,
    SealReplica,
    enveloped,
    initialised,
    keys_by,
    rotate,
)
from tests.services.audit.test_rotation import SECOND

REPORT = keyspace.AUDIT_REPLICAS + b"node-1"


async def started(etcd: Etcd, folder: Path) -> tuple[Position, int]:
    """Where a start finds the log of node-1 to go on from, and how many entries it has then."""
    opened = await keys_by(etcd, SealReplica(IN_USE - 1, IN_USE)).open()
    log = Segments(folder)
    try:
        return await find_start(etcd, log, opened, REPORT, lambda _: None), log.size
    finally:
        log.close()


async def put(etcd: Etcd, key: bytes, value: bytes) -> None:
    await etcd.transact(txn.txn([], [txn.put(key, value)]))


async def went_astray(etcd: Etcd, folder: Path) -> Position:
    """Have node-1 refuse a true rotation, as versions before did; entry 2 is the refusal."""
    await initialised(etcd)
    kv = Producer(etcd, "kv", "a" * 16)
    await kv.put(2)
    await rotate(etcd, "rotator", enveloped(SECOND, 2, IN_USE))
    last = await kv.put(3)
    async with following(etcd, folder, "node-1", keys=audit_keys()) as replica:  # knows of no term 2
        await caught_up(last, replica)
        await until(lambda: _reported(etcd, last), "it has reported")
        position = replica.position
    assert position.size == 6 and b"UnreadableRecord" in text_of(folder)
    return position


async def went_right(etcd: Etcd, folder: Path, last: int) -> Position:
    keys = keys_by(etcd, SealReplica(IN_USE - 1, IN_USE))
    async with following(etcd, folder, "node-2", keys=keys) as replica:
        await caught_up(last, replica)
        return replica.position


@pytest.mark.parametrize("mark_is", ["within the log", "beyond it"])
async def test_one_astray_among_others_is_cut_back_to_where_the_others_went_on(
    etcd: Etcd, tmp_path: Path, mark_is: str
) -> None:
    last = (await went_astray(etcd, tmp_path / "1")).revision
    if mark_is == "beyond it":
        last = await Producer(etcd, "kv", "b" * 16).put(4)
    mark = await went_right(etcd, tmp_path / "2", last)
    await put(etcd, keyspace.AUDIT_MARK, mark.pack())

    async def copy(log: Segments, keys: Keys, mark: Position) -> None:
        lines = text_of(tmp_path / "2").splitlines(keepends=True)
        log.append([parse_line(line) for line in lines[log.size : mark.size]])

    keys = keys_by(etcd, SealReplica(IN_USE - 1, IN_USE))
    async with following(etcd, tmp_path / "1", "node-1", copy, keys) as replica:
        await caught_up(last, replica)
        assert replica.healthy
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    assert list((tmp_path / "1").glob("*.astray-1"))


@pytest.mark.parametrize("known", ["the mark", "the checkpoint"])
async def test_what_all_of_them_agreed_on_is_never_rewritten(etcd: Etcd, tmp_path: Path, known: str) -> None:
    position = await went_astray(etcd, tmp_path / "1")
    before = text_of(tmp_path / "1")
    log = Segments(tmp_path / "1")
    note = sign(Checkpoint(ORIGIN, log.size, log.hashes.root(log.size)), SIGNING)
    log.close()
    if known == "the mark":
        await put(etcd, keyspace.AUDIT_MARK, position.pack())
    else:
        await put(etcd, keyspace.AUDIT_CHECKPOINT, note.encode())
    for _ in range(2):
        assert await started(etcd, tmp_path / "1") == (position, 6)
    keys = keys_by(etcd, SealReplica(IN_USE - 1, IN_USE))
    async with following(etcd, tmp_path / "1", "node-1", keys=keys) as replica:
        await caught_up(await Producer(etcd, "kv", "b" * 16).put(1), replica)
        assert replica.healthy and replica.position.size == 7
    assert text_of(tmp_path / "1").startswith(before)


async def test_a_replica_that_lags_behind_a_rotation_misses_nothing(etcd: Etcd, tmp_path: Path) -> None:
    await initialised(etcd)
    kv = Producer(etcd, "kv", "a" * 16)
    await rotate(etcd, "forger", None, 7)  # is refused, and rightly
    last = await kv.put(2)
    async with following(etcd, tmp_path / "1", "node-1", keys=audit_keys()) as replica:
        await caught_up(last, replica)
        await until(lambda: _reported(etcd, last), "it has reported")
        position = replica.position
    assert b"UnreadableRecord" in text_of(tmp_path / "1")
    await rotate(etcd, "rotator", enveloped(SECOND, FIRST_TERM + 1, IN_USE))
    mark = await went_right(etcd, tmp_path / "2", await kv.put(1))
    await put(etcd, keyspace.AUDIT_MARK, mark.pack())
    assert await started(etcd, tmp_path / "1") == (position, 3)


async def _reported(etcd: Etcd, revision: int) -> bool:
    row = await etcd.get(REPORT)
    return row is not None and row.mod_revision > revision
