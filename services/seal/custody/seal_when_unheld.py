"""A cluster that etcd calls unsealed, and in which nobody holds a key any more, is called sealed.

If everything was restarted, say, the cluster *is* sealed; then `seal/state` is changed to sealed, and people
unseal it as usual. Nobody must have held a key for 3 s. Replicas whose records say that they hold a key are
asked first (`key_holders`); for one that does not answer, the time is waited in which it would have wiped its
keys.
"""

from __future__ import annotations

import time

import structlog
from google.protobuf.message import DecodeError

from services.seal import seal_decisions
from services.seal.custody.held_keys import WIPE_AFTER_S
from services.seal.custody.key_holders import Found, Holders
from services.seal.repository import SealState
from strongbox.errors import StrongBoxError
from strongbox.store.decisions.audit_journal import Draft
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.etcd.errors import EtcdError

NOBODY_FOR = 3.0  # seconds without a holder before the cluster is called sealed
UNKNOWN_FOR = WIPE_AFTER_S + 1.0  # the same, where somebody who may hold a key does not answer
GAP = 2.0  # seconds between two looks that belong together: what was between longer ones is not known
_log = structlog.get_logger(__name__)


class SealWhenUnheld:
    """One per process."""

    def __init__(self, pipeline: Pipeline, holders: Holders) -> None:
        self._pipeline, self._holders = pipeline, holders
        self._held_at = self._looked_at = time.monotonic()

    async def look(self, state: SealState | None) -> None:
        """Put sealed where nobody holds a key for long enough; `state` was read just now. Never raises."""
        now = time.monotonic()
        try:
            found = Found.HELD if state is None or state.is_sealed else await self._holders.look()
            if state is None or found is Found.HELD or now - self._looked_at > GAP:
                self._held_at = now
            elif now - self._held_at >= (NOBODY_FOR if found is Found.NOBODY else UNKNOWN_FOR):
                await self._pipeline.submit(abandoning(state.generation))
        except (EtcdError, StrongBoxError, DecodeError, ValueError) as error:  # etcd may hold anything
            _log.info("whether anybody holds a key is not known", kind=type(error).__name__)
            self._held_at = now
        self._looked_at = time.monotonic()


def abandoning(generation: int) -> Work[SealState]:
    """The work of calling a cluster sealed that nobody can open; audited."""
    draft = Draft(op="Seal", path="sys/seal", request_id="", client="")
    return Work(
        lambda view: seal_decisions.abandon(view, generation), draft, time.monotonic() + 1.0, always=True
    )
