"""Whatever stands in etcd or is set, retention goes on, tells it, and ends no process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.audit.duties import retention as retention_module
from services.audit.duties.audit_duty import reported_in
from services.audit.duties.retention import Retention, Rule, index_of
from services.audit.following.position import BEGINNING, Position
from services.audit.following.replica import Replica
from services.audit.log.archiving import Archive
from services.audit.log.segments import Segments
from strongbox.config import ConfigError, load
from strongbox.store import keyspace
from strongbox.store.etcd.client import KV
from tests.services.audit.log.test_archiving import ENTRIES, log_of, note_of
from tests.services.audit.logs import KEYS
from tests.services.audit.producers import audit_keys

JUNK = [b"", b"junk", b"-5", b"\xff\xfe", "٣".encode(), b"9" * 19]
UNREADABLE = b"\xff\xff\xff"  # for a protobuf record


class Holding(dict[bytes, bytes]):
    """As far as a replica sees etcd: a transaction of ranges."""

    async def transact(self, request: Any, **_: object) -> Any:
        ranges = [one.request_range for one in request.success]
        return SimpleNamespace(responses=[SimpleNamespace(response_range=self._of(one)) for one in ranges])

    def _of(self, wanted: Any) -> Any:
        end = wanted.range_end or wanted.key + b"\0"
        keys = sorted(key for key in self if wanted.key <= key < end)
        rows = [
            SimpleNamespace(key=key, value=self[key], mod_revision=1, create_revision=1, lease=0)
            for key in keys
        ]
        return SimpleNamespace(kvs=rows)


def holding(**more: bytes) -> Holding:
    """Everything is signed and trimmed; `more`: what else stands below `audit/`."""
    held = Holding({keyspace.AUDIT_CHECKPOINT: note_of(800).encode()})
    held[keyspace.AUDIT_MARK] = Position(800, ENTRIES[799].hmac, 7).pack()
    return Holding({**held, **{keyspace.ROOT + b"audit/" + name.encode(): more[name] for name in more}})


async def keeper(etcd: Holding, log: Segments, folder: Path, rule: Rule | None = None) -> Retention:
    keys = audit_keys()
    await keys.open()
    replica = SimpleNamespace(
        log=log, healthy=True, has_begun=True, position=Position(800, ENTRIES[799].hmac, 7)
    )
    return Retention(cast("Any", etcd), cast("Any", replica), keys, Archive(folder, "node-1"), rule)


@pytest.mark.parametrize("junk", JUNK)
async def test_junk_for_an_index_stops_no_archiving_by_rule(tmp_path: Path, junk: bytes) -> None:
    log = log_of(tmp_path / "log")
    keep = await keeper(holding(archive=junk), log, tmp_path / "archive", Rule(limit=1))
    await keep.look()
    assert log.first == max(log.firsts.values()) > 0
    assert "cannot be archived" not in keep.warning
    assert index_of(junk) == 0


async def test_a_mark_that_nobody_can_read_is_told_and_moves_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    keep = await keeper(holding(mark=UNREADABLE), log, tmp_path / "archive", Rule(limit=1))
    await keep.look()
    assert "audit/mark cannot be read" in keep.warning
    assert log.first == 0


async def test_what_nobody_had_thought_of_is_told_and_looking_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path / "log")
    keep = await keeper(holding(archive=b"300"), log, tmp_path / "archive")
    met = list[str]()

    def fails_once(*_: object) -> int:
        met.append(keep.warning)
        if len(met) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return 0

    monkeypatch.setattr(retention_module, "PERIOD", 0.01)
    monkeypatch.setattr(Rule, "below", fails_once)
    running = asyncio.create_task(keep.run())
    try:
        async with asyncio.timeout(60):
            while not log.first:
                await asyncio.sleep(0.01)
        assert not running.done()
        assert "failed: see the log" in met[1]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_report_that_nobody_can_read_hides_no_other_and_counts_as_of_who_holds_nothing(
    tmp_path: Path,
) -> None:
    """As the duty counts it, so that nobody takes a replica for one that has archived, or for none."""
    prefix = keyspace.AUDIT_REPLICAS
    etcd = Holding(
        {prefix + b"a": UNREADABLE, prefix + b"b": Position(9, "h", 5).pack(4), prefix + b"\xff": b""}
    )
    log = Segments(tmp_path)
    replica = Replica(cast("Any", etcd), log, "b")
    told = await replica.reports(time.monotonic() + 1)
    assert told == {"a": 0, "b": 4, "\\xff": 0}
    assert reported_in(KV(prefix + b"a", UNREADABLE, 1, 1, 0)) == BEGINNING
    log.close()


def test_a_segment_that_is_begun_while_what_may_go_is_counted_spoils_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    newest, start = max(log.firsts.items())

    class Growing(dict[int, int]):
        """As if the follower's thread began a segment between two steps."""

        def items(self) -> Any:
            def each() -> Iterator[tuple[int, int]]:
                for one in super(Growing, self).items():
                    yield one
                    self[newest + 1] = start + 100

            return each()

    log._known.firsts = Growing(log._known.firsts)
    assert Rule(limit=1).below(log, 0) == start
    assert Archive(tmp_path / "archive", "node-1").move(log, start, KEYS, note_of(800)) == newest


def test_entries_are_kept_for_a_hundred_years_at_most(tmp_path: Path) -> None:
    """Further back there is no date for a log that is not that old."""
    environ = {
        "STRONGBOX_NODE_ID": "n", "STRONGBOX_ETCD_ENDPOINTS": "e", "STRONGBOX_TLS_CERT": "c",
        "STRONGBOX_TLS_KEY": "k", "STRONGBOX_TLS_CA": "a", "STRONGBOX_AUDIT_ARCHIVE": "/archive",
    }  # fmt: skip
    longest = load("audit", {**environ, "STRONGBOX_AUDIT_KEEP_DAYS": "36500"}).audit_keep_days
    assert Rule(days=longest).below(log_of(tmp_path / "log"), time.time_ns() // 1_000_000) == 0
    for days in ("36501", "999999999"):
        with pytest.raises(ConfigError, match="36500"):
            load("audit", {**environ, "STRONGBOX_AUDIT_KEEP_DAYS": days})
