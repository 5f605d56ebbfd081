"""What every service process has in common, put together once; services add theirs in `assemble`.

`assemble` registers and returns: it must not wait for etcd or for the seal service, because nothing answers
(not even "sealed") before it has returned. What has to wait is given to `spawn` or `duty`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio
import structlog

from strongbox.audit_outbox.outbox import Outbox
from strongbox.audit_outbox.refusal_counts import Slots
from strongbox.clock import Clock, SystemClock
from strongbox.config import Settings
from strongbox.process.certificate_end import tell_certificate_end
from strongbox.process.certificate_renewal import Renewal
from strongbox.process.duties import DUTIES
from strongbox.process.metrics import Metrics, observer_of
from strongbox.process.presence import Presence
from strongbox.process.token_uses import Uses
from strongbox.rpc.interceptors.call_log import Reporter
from strongbox.rpc.key_client import KeyClient
from strongbox.rpc.revealing import RequireUnsealed, refuse_all
from strongbox.rpc.server import Health, Server
from strongbox.store import keyspace
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.duties.election import Duty, Term
from strongbox.store.duties.session import Session
from strongbox.store.etcd.client import Etcd, Tls
from strongbox.store.space.admission import Space
from strongbox.tls import identity, identity_of

_log = structlog.get_logger(__name__)


class Runtime:
    """One process's parts. Make it inside the event loop; raises OSError when files or the port fail."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.stopping = asyncio.Event()
        self.failed = False
        self.trouble = ""  # told in the session key
        self.restarting = False
        self.renewal = Renewal(identity_of(settings))
        self.etcd = Etcd(settings.etcd_endpoints, Tls.of(self.renewal.identity))
        self.upkeep, self._upkeep_renewal = _upkeep(settings, self.etcd)
        self.memory = Memory()
        self.journal = Outbox(settings.service)
        # What the seal service does is needed for safety: it is never refused for want of space.
        space = Space(0 if settings.service == "seal" else settings.etcd_quota_mib << 20)
        self.pipeline = Pipeline(self.etcd, self.memory, self.journal, self.clock, space)
        self.slots = Slots(self.pipeline)
        self.metrics: Metrics | None = observer_of(settings)
        if self.metrics is not None:
            tell_certificate_end(self.metrics.registry, self.renewal.identity)
        self._keys = None if settings.service == "seal" else KeyClient(settings)
        self.uses = Uses(settings, self.etcd)
        reporter = Reporter(self.metrics, self.slots.count)
        # The seal service sets its own in `assemble`; until then no secret leaves it.
        self.require_unsealed_since: RequireUnsealed = (
            refuse_all if self._keys is None else self._keys.require_unsealed_since
        )
        self.server = Server(settings, reporter, self._is_sealed, self.uses.spend, self._require_unsealed)
        self.listening = _with_port(settings.listen, self.server.bind(settings.listen))
        self.address = settings.advertise or self.listening
        key = keyspace.node(settings.service, settings.node_id)
        self.session = Session(self.etcd, key, self._presence, settings.session_ttl_s, refresh=2.0)
        if self._keys is not None:
            self._keys.on_sealed(self.memory.clear)
            self._keys.on_sealed(self.session.write_now)
            self._keys.on_unsealed(self.session.write_now)
        self.renewal.on_renewed(lambda: self.etcd.renew(Tls.of(self.renewal.identity)))
        if self._keys is not None:
            self.renewal.on_renewed(self._keys.renew)
        self._own: list[Etcd] = []
        self.successes: dict[str, int] = {}  # by duty, when it last made progress here; milliseconds
        self._wanted: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._started = False

    def own_etcd(self) -> Etcd:
        """A client with connections of its own, for calls that must not queue; renewed and closed with us."""
        etcd = Etcd(self.settings.etcd_endpoints, Tls.of(self.renewal.identity))
        self.renewal.on_renewed(lambda: etcd.renew(Tls.of(self.renewal.identity)))
        self._own.append(etcd)
        return etcd

    @property
    def health(self) -> Health:
        """What health checks are told; `run` sets it when etcd has been reached."""
        return self.server.health

    @property
    def keys(self) -> KeyClient:
        """The way to the seal service; raises RuntimeError in the seal service itself."""
        if self._keys is None:
            raise RuntimeError("the seal service has its keys itself")
        return self._keys

    @property
    def is_unsealed(self) -> bool:
        """Whether this process has the record keys."""
        return self._keys is not None and self._keys.record_keys is not None

    def _presence(self) -> bytes:
        told = Presence(
            node=self.settings.node_id,
            service=self.settings.service,
            address=self.address,
            clock_ms=self.clock.now_ms(),
            healthy=self.health.serving,
            unsealed=self.is_unsealed,
            incarnation=self.journal.incarnation,
            trouble=self.trouble,
            duties=self.successes,
        )
        return told.pack()

    def serve(
        self, add_to_server: Callable[[Any, grpc.aio.Server], None], servicer: Any, full_name: str
    ) -> None:
        """Have `servicer` answer for the service `full_name`. Raises strongbox.rpc.method_rules.NoRule."""
        self.server.serve(add_to_server, servicer, full_name)

    def duty(self, name: str, work: Callable[[Term], Coroutine[Any, Any, None]]) -> Duty:
        """Seek the duty `election/<service>/<name>` and do `work(term)` while this replica holds it.

        The work calls `term.progress()` as it goes. Raises KeyError for a duty not in `duties.DUTIES`.
        """
        settings = self.settings
        assert DUTIES[name].service == settings.service
        self.successes[name] = 0
        key = keyspace.election(settings.service, name)
        duty = Duty(self.etcd, self.session, key, settings.node_id, lambda: self._succeeded(name))
        self.spawn(duty.run(work), f"duty {name}")
        return duty

    def _succeeded(self, name: str) -> None:
        self.successes[name] = self.clock.now_ms()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> None:
        """Run `work` beside the server until the process stops; if it fails the process stops with 1."""
        self._wanted.append((name or getattr(work, "__qualname__", "work"), work))
        if self._started:
            self._launch()

    def tell_trouble(self, what: str) -> None:
        """What is wrong here ("": nothing is any more), told in the session key."""
        self.trouble = what
        self.session.write_now()

    def stop(self) -> None:
        """Begin to stop."""
        self.stopping.set()

    def restart(self) -> None:
        """Stop, then run the same program anew on the same port: the only way to wipe memory for certain."""
        self.restarting = True
        self.stopping.set()

    async def start(self) -> None:
        """Listen and begin everything; returns at once, whether or not etcd answers."""
        await self.pipeline.start()
        await self.session.start()
        if self._keys is not None:
            await self._keys.start()
        self.spawn(self.slots.run(), "slots")
        self.spawn(self.renewal.run(), "renewal of certificates")
        if self._upkeep_renewal is not None:
            self.spawn(self._upkeep_renewal.run(), "renewal of the certificate for upkeep")
        self.spawn(self.journal.bound.follow(self.etcd), "outbox bound")
        await self.server.start()
        if self.settings.probe_listen:
            await self.health.start_probes(self.settings.probe_listen)
        self._started = True
        self._launch()

    async def drain(self, grace: float) -> None:
        """Give up the duties, take no more calls, finish those in flight within `grace` seconds."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(self.server.stop(grace), *self._running, return_exceptions=True)

    async def close(self) -> None:
        """End what is left; the session is revoked, so that others see it at once."""
        for _, work in self._wanted:
            work.close()
        await self.health.stop_probes()
        await self.pipeline.close()
        if self._keys is not None:
            await self._keys.close()
        await self.uses.close()
        await self.session.close()
        for etcd in (self.etcd, *self._own):
            await etcd.close()
        if self.upkeep is not self.etcd:
            await self.upkeep.close()

    def _is_sealed(self) -> bool:
        """Whether the keys are missing here; the seal service looks for itself."""
        return self._keys is not None and self._keys.record_keys is None

    def _require_unsealed(self, proven: float) -> None:
        self.require_unsealed_since(proven)  # looked up when it is asked: seal sets its own in `assemble`

    def _launch(self) -> None:
        wanted, self._wanted = self._wanted, []
        for name, work in wanted:
            task = asyncio.create_task(work, name=name)
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # A process that goes on without one of its parts is worse than one that starts again.
        error = task.exception()
        _log.error("background work failed; the process stops", work=task.get_name(), exc_info=error)
        self.failed = True
        self.stopping.set()


def _upkeep(settings: Settings, own: Etcd) -> tuple[Etcd, Renewal | None]:
    """Etcd for compaction, defragmentation and disarming: as `upkeep` where there is such a certificate.

    Without one it is the process's own client, to which etcd refuses these once authentication is on.
    """
    if settings.upkeep_cert is None or settings.upkeep_key is None:
        return own, None
    renewal = Renewal(identity(settings.tls_ca, settings.upkeep_cert, settings.upkeep_key))
    etcd = Etcd(settings.etcd_endpoints, Tls.of(renewal.identity))
    renewal.on_renewed(lambda: etcd.renew(Tls.of(renewal.identity)))
    return etcd, renewal


def _with_port(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port}"
