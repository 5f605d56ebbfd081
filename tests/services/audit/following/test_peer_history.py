"""A replica without history gets it from a peer over real gRPC, and believes only what it verified."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from services.audit.following.peer_history import AuditPeerServicer, PeerHistory
from services.audit.log.segments import Segments
from strongbox.audit.v1 import audit_peer_service_pb2_grpc as pb_grpc
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.services.audit.log.archived_logs import LIMIT, archived
from tests.services.audit.logs import chain
from tests.services.audit.producers import Producer, caught_up, following, text_of, until


@asynccontextmanager
async def serving(*logs: Segments) -> AsyncIterator[PeerHistory]:
    """One peer per log, and the history of them all in that order."""
    servers, channels = [], []
    for log in logs:
        server = grpc.aio.server()
        pb_grpc.add_AuditPeerServiceServicer_to_server(AuditPeerServicer(log), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))

    async def peers() -> Sequence[grpc.aio.Channel]:
        return channels

    try:
        yield PeerHistory(peers)
    finally:
        for channel in channels:
            await channel.close(None)
        for server in servers:
            await server.stop(None)


async def trimmed_history(etcd: Etcd, folder: Path) -> int:
    """A log in `folder` of which etcd no longer holds anything; returns the newest revision."""
    kv = Producer(etcd, "kv", "a" * 16)
    for _ in range(300):
        revision = await kv.put(2)
    async with following(etcd, folder, "node-1") as one:
        await caught_up(revision, one)
        mark = one.position.pack()
    everything = txn.delete(keyspace.OUTBOX, keyspace.prefix_end(keyspace.OUTBOX))
    await etcd.transact(txn.txn([], [everything, txn.put(keyspace.AUDIT_MARK, mark)]))
    revision = await kv.put(1)
    await etcd.compact(revision)
    return revision


async def test_a_new_replica_copies_trimmed_history_and_goes_on(etcd: Etcd, tmp_path: Path) -> None:
    revision = await trimmed_history(etcd, tmp_path / "1")
    async with (
        serving(Segments(tmp_path / "1")) as history,
        following(etcd, tmp_path / "2", "node-2", history) as other,
    ):
        await caught_up(revision, other)
        assert other.healthy
    async with following(etcd, tmp_path / "1", "node-1") as one:
        await caught_up(revision, one)
    assert text_of(tmp_path / "1") == text_of(tmp_path / "2")
    assert text_of(tmp_path / "2").count(b"\n") == 601


async def test_a_damaged_log_is_mended_from_a_peer(etcd: Etcd, tmp_path: Path) -> None:
    revision = await trimmed_history(etcd, tmp_path / "1")
    async with serving(Segments(tmp_path / "1")) as history:
        async with following(etcd, tmp_path / "2", "node-2", history) as other:
            await caught_up(revision, other)
        whole = text_of(tmp_path / "2")
        (file,) = (tmp_path / "2").glob("*.jsonl")
        file.write_bytes(whole.replace(b'"request_id":"kv-40-0-1"', b'"request_id":"kv-40-0-9"'))
        async with following(etcd, tmp_path / "2", "node-2", history) as other:
            assert "not the one that was written" in other.trouble
            await caught_up(revision, other)
            assert other.healthy
        assert text_of(tmp_path / "2") == whole
        file.unlink()
        async with following(etcd, tmp_path / "2", "node-2", history) as other:
            await caught_up(revision, other)
    assert text_of(tmp_path / "2") == whole
    assert len(list((tmp_path / "2").glob("*.damaged-*"))) == 1


async def test_a_peer_with_forged_history_is_passed_over(etcd: Etcd, tmp_path: Path) -> None:
    revision = await trimmed_history(etcd, tmp_path / "1")
    forged = Segments(tmp_path / "forged")
    forged.append(chain(700, key=b"another key, not the cluster's!!"))
    async with (
        serving(forged, Segments(tmp_path / "1")) as history,
        following(etcd, tmp_path / "2", "node-2", history) as other,
    ):
        await caught_up(revision, other)
    assert b"another" not in text_of(tmp_path / "2")
    assert text_of(tmp_path / "2").startswith(text_of(tmp_path / "1"))


async def test_without_an_honest_peer_nothing_is_written(etcd: Etcd, tmp_path: Path) -> None:
    await trimmed_history(etcd, tmp_path / "1")
    forged = Segments(tmp_path / "forged")
    forged.append(chain(700, key=b"another key, not the cluster's!!"))
    asked = 0
    async with serving(forged) as history:

        async def counted(*arguments: object) -> None:
            nonlocal asked
            asked += 1
            await history(*arguments)  # type: ignore[arg-type]  # passed on as they came

        async with following(etcd, tmp_path / "2", "node-2", counted):
            await until(lambda: asked > 1, "it keeps asking")
    assert text_of(tmp_path / "2") == b""


async def test_each_peer_says_where_its_log_begins_or_that_it_does_not_answer(tmp_path: Path) -> None:
    gone, _ = archived(tmp_path / "archived")
    whole = Segments(tmp_path / "whole")
    whole.append(chain(5))
    logs = (Segments(gone.folder, segment_bytes=LIMIT), whole, Segments(tmp_path / "empty"))
    async with serving(*logs) as history:
        assert await history.markers() == [gone.marker.pack(), b""]

    async def nobody() -> Sequence[grpc.aio.Channel]:
        return [grpc.aio.insecure_channel("127.0.0.1:1")]

    assert await PeerHistory(nobody).markers() == [None]
