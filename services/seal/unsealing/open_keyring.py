"""From the root key to held keys: check it, open the keyring, write `holds` to etcd, take all into custody.

The order matters: the transaction that writes `holds` also proves (or puts) the unsealed state, and only then
is any key used. If its outcome is unknown it can be repeated, since deciding again finds the cluster
unsealed.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from services.seal import repository, seal_decisions
from services.seal.custody.held_keys import Custody
from services.seal.custody.replica_record import Registry
from services.seal.keys import root_key
from services.seal.keys.keyring import Keyring, open_keyring
from services.seal.repository import SealState
from strongbox.clock import Clock
from strongbox.crypto.memory_protection import LockedBytes
from strongbox.errors import NoQuorum, UnknownOutcome
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Pipeline, Work

_log = structlog.get_logger(__name__)


class Opener:
    """The only way by which keys come into custody."""

    def __init__(self, pipeline: Pipeline, custody: Custody, registry: Registry, clock: Clock) -> None:
        self._pipeline, self._custody, self._registry = pipeline, custody, registry
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether this replica holds keys."""
        return self._custody.generation is not None

    async def open(
        self, root: bytes, config: storage.SealConfig, nonce: str, draft: Draft | None, deadline: float
    ) -> None:
        """Hold the keys of `root`, unsealing the cluster if it is sealed and `nonce` is its attempt.

        Raises IntegrityError (not this cluster's root key, or records that do not open), InvalidInput (the
        attempt was reset), NoQuorum, UnknownOutcome: then nothing is held.
        """
        locked = LockedBytes(root_key.require_root(config, root))
        if not locked.locked:
            _log.warning("the root key's page could not be locked in memory")
        keyring: Keyring | None = None
        try:
            look = Work(repository.require_keys, None, deadline)
            stored, record_keys = (await self._pipeline.submit(look)).value
            keyring = open_keyring(root, config.cluster_id, stored, record_keys)
            asked, state = await self._say(nonce, draft, deadline)
        except BaseException:
            if keyring is not None:
                keyring.wipe()
            locked.wipe()
            raise
        self._custody.hold(locked, keyring, state.generation, asked)

    async def _say(self, nonce: str, draft: Draft | None, deadline: float) -> tuple[float, SealState]:
        """Write `holds`; returns when the proof was asked for (monotonic s), and the state proved."""
        while True:
            asked = self._clock.monotonic()
            record = self._registry.record()
            work = Work(
                lambda view: seal_decisions.complete(view, nonce, record),  # noqa: B023
                draft,
                deadline,
                always=True,
            )
            try:
                return asked, (await self._pipeline.submit(work)).value
            except (NoQuorum, UnknownOutcome):
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.02)
