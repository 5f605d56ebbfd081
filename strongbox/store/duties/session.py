"""A process's presence in etcd: one key under an etcd lease that is renewed as long as the process lives.

Rules:
* The process takes its session for alive by its *own* monotonic clock, from before the request that granted
  or renewed the etcd lease was sent, for nine tenths of the TTL, since clocks run apart: never longer than
  etcd keeps its keys.
* That is a hint only (a process may be paused, a new etcd leader re-arms leases): every write a duty makes
  compares its fence as well.
* A session that is lost is not revived: a new etcd lease is granted, with a new id, so that whoever held
  anything under the old one has to win it again.
* The key's value is written with the grant, again every `refresh` seconds (it carries the process's clock),
  and at once when `write_now` says that it has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

import structlog

from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import EtcdError, LeaseGone

_log = structlog.get_logger(__name__)
_TRUST = 0.9  # share of the TTL for which the session is taken for alive
_GRANT_PAUSE = 0.2  # seconds between attempts to get a session


class Tenure:
    """One etcd lease of the session, from its grant until it is lost."""

    def __init__(self, lease: int, wake: asyncio.Event | None = None) -> None:
        self.lease = lease
        self.lost = asyncio.Event()
        self._wake = wake or asyncio.Event()
        self._valid_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether the lease is surely alive, by this process's clock."""
        return not self.lost.is_set() and time.monotonic() < self._valid_until

    def extend(self, started: float, ttl: int) -> None:
        """The lease was granted or renewed for `ttl` seconds by a request begun at `started`."""
        self._valid_until = started + ttl * _TRUST
        if self._alarm:
            self._alarm.cancel()
        delay = self._valid_until - time.monotonic()
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, delay), self.end)

    def end(self) -> None:
        """The etcd lease is lost, for good."""
        if self._alarm:
            self._alarm.cancel()
        self.lost.set()
        self._wake.set()


class Session:
    """Keeps `key` present in etcd with `value_factory()` under an etcd lease of `ttl` whole seconds."""

    def __init__(
        self, etcd: Etcd, key: bytes, value_factory: Callable[[], bytes], ttl: int, *, refresh: float = 5.0
    ) -> None:
        self._etcd = etcd
        self._key = key
        self._value = value_factory
        self._ttl = ttl
        self._refresh = refresh
        self._tenure: Tenure | None = None
        self._arrived = asyncio.Condition()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether etcd surely still holds this session, by this process's clock."""
        return self._tenure is not None and self._tenure.alive

    @property
    def lease_id(self) -> int:
        """The etcd lease's id; 0 while there is no live session."""
        return self._tenure.lease if self._tenure and self._tenure.alive else 0

    async def start(self) -> None:
        """Begin; returns at once. The session exists once `current()` has returned."""
        self._task = asyncio.create_task(self._keep(), name=f"session {self._key!r}")

    async def current(self) -> Tenure:
        """The live tenure, waiting for one if there is none."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.alive)
        assert self._tenure is not None
        return self._tenure

    def write_now(self) -> None:
        """The value has changed: have it written at once, or with the next grant."""
        self._wake.set()

    async def close(self) -> None:
        """Stop renewing and revoke the etcd lease, so that others see it at once."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        tenure, self._tenure = self._tenure, None
        if tenure:
            tenure.end()
            await self._revoke(tenure.lease)

    async def _keep(self) -> None:
        while True:
            try:
                await self._hold(await self._grant())
            except EtcdError as error:
                _log.warning("the session is not held", why=type(error).__name__)
            except Exception:  # noqa: BLE001  try again: without a session a process does no duty
                _log.exception("the session failed")
            await asyncio.sleep(_GRANT_PAUSE)

    async def _grant(self) -> Tenure:
        lease, started = secrets.randbits(62) + 1, time.monotonic()
        deadline = started + max(1.0, self._ttl * _TRUST)
        ttl = await self._etcd.lease_grant(lease, self._ttl, deadline=deadline)
        tenure = Tenure(lease, self._wake)
        self._wake.clear()
        await self._write(lease, deadline)
        tenure.extend(started, ttl)
        async with self._arrived:
            self._tenure = tenure
            self._arrived.notify_all()
        return tenure

    async def _hold(self, tenure: Tenure) -> None:
        """Renew until the tenure is lost; then clear what is left of it."""
        written = time.monotonic()
        try:
            while True:
                changed = await _happens(self._wake, self._ttl / 3)
                self._wake.clear()
                if tenure.lost.is_set() or not await self._renew(tenure):
                    break
                if (changed or time.monotonic() - written >= self._refresh) and await self._rewrite(tenure):
                    written = time.monotonic()
        except LeaseGone:
            _log.warning("the etcd lease ended under the session")
        finally:
            tenure.end()
        await self._revoke(tenure.lease)

    async def _renew(self, tenure: Tenure) -> bool:
        """One renewal; False when etcd says that the lease is gone.

        True for an attempt without an answer, which tells nothing.
        """
        started = time.monotonic()
        try:
            ttl = await self._etcd.keepalive_once(tenure.lease, deadline=started + self._ttl / 3)
        except EtcdError as error:
            _log.info("the session is not renewed", why=type(error).__name__)
            return True
        if ttl <= 0 or tenure.lost.is_set():
            return False
        tenure.extend(started, ttl)
        return True

    async def _rewrite(self, tenure: Tenure) -> bool:
        """Put the key's present value; False: to be tried later.

        A put that is refused (etcd's space may be used up) does not end a session that can be renewed.
        """
        try:
            await self._write(tenure.lease, time.monotonic() + self._ttl / 3)
        except LeaseGone:
            raise
        except EtcdError as error:
            _log.info("the session's value is not written", why=type(error).__name__)
            return False
        return True

    async def _write(self, lease: int, deadline: float) -> None:
        """Put the presence key. A late attempt puts an older value under the same lease, or nothing.

        Nested, which a full etcd takes: then too others must see whether duties get on, and who is sealed.
        """
        put = txn.put(self._key, self._value(), lease)
        request = txn.txn([], [txn.nested([], [put])])
        await self._etcd.transact(request, deadline=deadline, idempotent=True)

    async def _revoke(self, lease: int) -> None:
        with contextlib.suppress(EtcdError):
            await self._etcd.lease_revoke(lease, deadline=time.monotonic() + 1.0)


async def _happens(event: asyncio.Event, within: float) -> bool:
    """Whether `event` happens within so many seconds."""
    try:
        async with asyncio.timeout(within):
            await event.wait()
    except TimeoutError:
        return False
    return True
