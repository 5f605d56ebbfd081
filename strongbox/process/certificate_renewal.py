"""Notices that a certificate was renewed, and has the connections made with the old one made anew.

Servers look at every handshake by themselves (strongbox.rpc.server); this is for a process's connections to
others. Calls under way end on the old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from strongbox.tls import Identity

LOOK_EVERY = 2.0  # seconds; Kubernetes itself brings a changed secret within a minute or so
_log = structlog.get_logger(__name__)


class Renewal:
    """Follows one identity. `run` is for ever."""

    def __init__(self, identity: Identity) -> None:
        """Read it. Raises OSError."""
        self.identity = identity
        self._known = identity.current()
        self._callbacks: list[Callable[[], None]] = []

    def on_renewed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, in the event loop, each time the certificate is another one."""
        self._callbacks.append(callback)

    async def run(self) -> None:
        """Look every other second."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Look once, and call the callbacks if the certificate is another one."""
        newest = self.identity.current()
        if newest is self._known:
            return
        self._known = newest
        _log.info("the certificate was renewed")
        for callback in self._callbacks:
            callback()
