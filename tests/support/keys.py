"""The seal service as kv sees it: wraps and unwraps under a real key, counts, waits and fails when told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from strongbox.crypto import IntegrityError
from strongbox.crypto.aead import Aead
from strongbox.crypto.envelope import Dek, WrappedDek, unwrap_dek, wrap_dek
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import NoQuorum, Sealed, StrongBoxError
from strongbox.rpc.key_client import PROOF_S


class FakeKeyClient:
    """As strongbox.rpc.key_client.KeyClient. `gate` holds unwraps back; `error` is what calls raise."""

    def __init__(self, record_keys: RecordKeys | None) -> None:
        self.record_keys = record_keys
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: StrongBoxError | None = None
        self.wraps = self.unwraps = self.cancelled = 0
        self._kek = Aead(b"K" * 32)
        self._callbacks: list[Callable[[], None]] = []
        self._dropped_at = float("-inf")
        self.stale = False  # whether every proof has run out

    def require_unsealed_since(self, proven: float) -> None:
        if self.record_keys is None or self._dropped_at >= proven:
            raise Sealed
        if self.stale or time.monotonic() - proven > PROOF_S:
            raise NoQuorum

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        self._check()
        self.wraps += len(deks)
        return self._wrapped(deks)

    async def rewrap(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        self._check()
        found: list[WrappedDek | None] = []
        for one in wrapped:
            try:
                found += self._wrapped([Dek(one.id, unwrap_dek(self._kek, "kv", one))])
            except IntegrityError:
                found.append(None)
        return found

    def _wrapped(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Under one key for all terms; the term is in what is authenticated."""
        assert self.record_keys is not None
        return [wrap_dek(self._kek, "kv", self.record_keys.newest, dek) for dek in deks]

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self._check()
        self.unwraps += len(wrapped)
        return [unwrap_dek(self._kek, "kv", one) for one in wrapped]

    def unwrap_soon(self, wrapped: WrappedDek) -> asyncio.Future[list[bytes]]:
        return asyncio.ensure_future(self._unwrap_one(wrapped))

    async def _unwrap_one(self, wrapped: WrappedDek) -> list[bytes]:
        try:
            return await self.unwrap([wrapped])
        except IntegrityError:
            return [b""]

    def on_sealed(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def seal(self) -> None:
        """The cluster is sealed."""
        self.record_keys = None
        self._dropped_at = time.monotonic()
        for callback in self._callbacks:
            callback()

    def _check(self) -> None:
        if self.record_keys is None:
            raise Sealed
        if self.error is not None:
            raise self.error
