"""Retention: archiving old segments, by request and by rule, and warning before there is no room.

* `ArchiveEntries` puts an index into etcd at `audit/archive`; every replica that has an archive archives its
  own log up to there. If somebody else puts an index there, entries are archived too early, and none is lost.
* A rule (`STRONGBOX_AUDIT_LIMIT_MIB`, `STRONGBOX_AUDIT_KEEP_DAYS`) works only where there is an archive.
* Whatever is asked for, an entry is archived only if it is below a signed checkpoint that agrees with this
  log, below the trimming mark (so a second replica, if there is one, holds it) and below this replica's own
  position.
* Nothing here stops the chain: a failure is reported and tried again.
* Damaged files of the log's marker are written again, and a lost marker is searched for until it is found.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from services.audit.following.position import Position
from services.audit.following.replica import Replica
from services.audit.following.start_position import read_checkpoint
from services.audit.keys import AuditKeys
from services.audit.log.archiving import Archive, NotArchived, keep_copies
from services.audit.log.find_beginning import find
from services.audit.log.repair import prove_again
from services.audit.log.segments import Archived, Broken, Segments
from strongbox.audit_log.chain import Keys, MissingKey, timestamp
from strongbox.audit_log.checkpoint import Checkpoint
from strongbox.audit_log.sparse_index import time_of
from strongbox.config import Settings
from strongbox.errors import Sealed
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, rows_of
from strongbox.store.etcd.errors import EtcdError

PERIOD = 5.0  # seconds
WARN = 0.8  # of the disk, or of the size that is allowed: above that, people are warned
_BEGIN, _DOWN_TO = 0.7, 0.6  # of the size that is allowed: where archiving begins and ends
LOOK_FOR_MARKER = 60.0  # seconds between searches, at least: a search may read the archive's segments
LOST = "the marker of what is archived is lost here: no checkpoint and no proof, until a copy is found"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rule:
    """How much of a log is kept out of the archive; 0: no limit."""

    limit: int = 0  # bytes
    days: int = 0

    def below(self, log: Segments, now_ms: int) -> int:
        """Entries below this index may go. Blocking. Raises OSError."""
        starts = dict(log.firsts)
        goes = log.first
        size = log.kept_bytes
        if self.limit and size > _BEGIN * self.limit:
            for segment in sorted(starts)[:-1]:
                if size <= _DOWN_TO * self.limit:
                    break
                size -= log.path(segment).stat().st_size
                goes = starts[segment + 1]
        if self.days:
            then = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=self.days)
            oldest = timestamp(int(then.timestamp() * 1000)).encode()
            for segment in sorted(starts)[1:]:
                line = next(log.read(starts[segment]), b"")
                if not line or time_of(line) >= oldest:
                    break
                goes = max(goes, starts[segment])
        return goes


class Room(NamedTuple):
    """The shares that are used of the disk and of the size that is allowed (0: no limit is set)."""

    disk: float
    allowed: float

    @classmethod
    def of(cls, log: Segments, limit: int) -> Room:
        """Blocking. Raises OSError."""
        found = os.statvfs(log.folder)
        used = found.f_blocks - found.f_bfree
        return cls(used / max(1, used + found.f_bavail), log.kept_bytes / limit if limit else 0.0)

    @property
    def warning(self) -> str:
        """The warning for people; "" when there is room."""
        if self.disk >= WARN:
            return f"the disk of the audit log is {self.disk:.0%} full"
        if self.allowed >= WARN:
            return f"the audit log is at {self.allowed:.0%} of the size that is allowed"
        return ""


class Retention:
    """One replica's retention. `warning` says what people should look at; the replica goes on serving."""

    def __init__(
        self,
        etcd: Etcd,
        replica: Replica,
        keys: AuditKeys,
        archive: Archive | None = None,
        rule: Rule | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.warning = ""
        self._looks_at = 0.0
        self.room = Room(0.0, 0.0)
        self._etcd, self._replica, self._keys = etcd, replica, keys
        self._archive, self._rule, self._now_ms = archive, rule or Rule(), now_ms

    @property
    def has_archive(self) -> bool:
        """Whether there is anywhere to archive to."""
        return self._archive is not None

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001  nothing here may stop the chain
                _log.exception("looking after the audit log failed")
                self.warning = "looking after the audit log failed: see the log"
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Archive what may go, and see how much room there is."""
        trouble = await self._try_keeping_the_marker() or await self._try_archiving()
        try:
            self.room = await asyncio.to_thread(Room.of, self._replica.log, self._rule.limit)
        except OSError as error:
            trouble = trouble or f"the room for the audit log cannot be measured: {error.strerror}"
        warning = trouble or self.room.warning
        if warning and warning.split(":")[0] != self.warning.split(":")[0]:
            _log.warning("the audit log needs attention", why=warning)
        self.warning = warning

    async def _try_keeping_the_marker(self) -> str:
        """Rewrite damaged marker files, or replace a stand-in; returns what people should see to, or ""."""
        log = self._replica.log
        if not self._replica.healthy or not self._replica.has_begun:
            return ""  # the marker read at opening may be wrong: it must not replace a good copy
        try:
            if log.stand_in is None:
                await asyncio.shield(asyncio.to_thread(self._keep_copies, log))
                return ""
            if (began := time.monotonic()) >= self._looks_at:
                await self._find_marker(log)
                now = time.monotonic()
                self._looks_at = now + max(LOOK_FOR_MARKER, 10 * (now - began))
        except (Sealed, EtcdError):
            return ""  # later
        except OSError as error:
            return f"the audit log's marker cannot be kept: {error.strerror}"
        except (Archived, Broken) as fault:
            return f"the audit log's marker cannot be restored: {fault}"
        return "" if log.stand_in is None else LOST

    def _keep_copies(self, log: Segments) -> None:
        with log.being_mended:
            if wrong := keep_copies(log, self._archive):
                _log.error("files of the audit log's marker are written anew", files=wrong)

    async def _find_marker(self, log: Segments) -> None:
        begins = log.stand_in
        marker = (await find(log.folder, self._keys.require().chain, self._replica.copies)).marker
        if marker is None or begins is None or marker.first != begins.first:
            return
        await asyncio.shield(asyncio.to_thread(prove_again, log, marker))

    async def _try_archiving(self) -> str:
        if self._archive is None or not self._replica.healthy or not self._replica.has_begun:
            return ""
        try:
            await self._archive_some(self._archive)
        except (Sealed, EtcdError, Archived):
            return ""  # later
        except OSError as error:
            return f"audit segments cannot be archived: {error.strerror}"
        except (NotArchived, MissingKey, Broken, ValueError) as fault:
            return f"audit segments cannot be archived: {fault}"
        except DecodeError:
            return "audit segments cannot be archived: what etcd holds at audit/mark cannot be read"
        return ""

    async def _archive_some(self, archive: Archive) -> None:
        keys = self._keys.require()
        wanted = (keyspace.AUDIT_ARCHIVE, keyspace.AUDIT_MARK, keyspace.AUDIT_CHECKPOINT)
        seen = await self._etcd.transact(txn.txn([], map(txn.range_, wanted)), idempotent=True)
        asked, mark, signed = (rows_of(part.response_range) for part in seen.responses)
        told = read_checkpoint(signed[0].value, keys) if signed else None
        if told is None or not mark:
            return
        safe = min(told.size, Position.parse(mark[0].value).size, self._replica.position.size)
        index = index_of(asked[0].value) if asked else 0

        def work() -> None:
            self._move(archive, min(safe, index), safe, keys.chain, told, signed[0].value.decode())

        # Shielded, so that it ends even if a sealing cancels this task: no second one may begin beside it.
        await asyncio.shield(asyncio.to_thread(work))

    def _move(self, archive: Archive, below: int, safe: int, keys: Keys, told: Checkpoint, note: str) -> None:
        """Blocking."""
        log = self._replica.log
        with log.being_mended:  # mending renames segments
            below = max(below, min(safe, self._rule.below(log, self._now_ms())))
            if log.damage or log.stand_in:
                return
            if min(below, told.size) < log.first or log.hashes.root(told.size) != told.root:
                return  # the duty, or the next start, finds what is wrong
            archive.move(log, below, keys, note)


def retention_of(settings: Settings, etcd: Etcd, replica: Replica, keys: AuditKeys) -> Retention:
    """The retention that the settings ask for."""
    folder = settings.audit_archive
    archive = Archive(folder, settings.node_id) if folder else None
    rule = Rule(settings.audit_limit_mib << 20, settings.audit_keep_days)
    return Retention(etcd, replica, keys, archive, rule)


def parse_index(value: bytes) -> int:
    """The index at `audit/archive`. Raises ValueError when that is no index."""
    if not (value.isdigit() and len(value) < 19):
        raise ValueError("what etcd holds at audit/archive is not an index")
    return int(value)


def index_of(value: bytes | None) -> int:
    """The index at `audit/archive`; 0 when that is no index, so that archiving by rule goes on."""
    try:
        return parse_index(value) if value else 0
    except ValueError:
        return 0
