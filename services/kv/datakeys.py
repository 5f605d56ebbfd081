"""Data keys: wrapped before a value is sealed, unwrapped while etcd proves that it may be read.

* A key is wrapped before the request is decided, since deciding waits for nothing. One that no value was
  sealed under goes to the next writer: junk requests do not use up the wraps a key term has.
* Wrapped under an older term than the one in use a key is thrown away (`Stale`): such a term will be retired.
* Spare keys are clear in memory; they are few, and are dropped when the cluster is sealed.
* An unwrap that nobody waits for any more is cancelled, and its error is nobody's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from strongbox.crypto.envelope import Dek, Envelope, WrappedDek, seal_value
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown, Internal, Sealed, StrongBoxError

PURPOSE = "kv"
MAX_SPARE = 32
_log = structlog.get_logger(__name__)


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.keys.KeyClient)."""

    @property
    def record_keys(self) -> RecordKeys | None:
        """None: sealed."""

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Raises `Sealed`, `DependencyDown`."""

    def unwrap_soon(self, wrapped: WrappedDek) -> asyncio.Future[list[bytes]]:
        """One key, in time; empty when it does not open. Raises `Sealed`, `DependencyDown`."""

    def on_sealed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the cluster is sealed."""


class Stale(DependencyDown):
    """A data key was wrapped under a term that is no longer in use; another one has to be taken."""


@dataclass(slots=True)
class DataKey:
    """A fresh key with its wrapping, for one value."""

    dek: Dek
    wrapped: WrappedDek
    _sealed: dict[tuple[str, int], Envelope] = field(default_factory=dict, repr=False)

    @property
    def is_unused(self) -> bool:
        """Whether nothing was sealed under it."""
        return not self._sealed

    def seal(self, path: str, version: int, plaintext: bytes) -> Envelope:
        """The one value of this key as a version; deciding again for the same version seals nothing anew."""
        known = self._sealed.get((path, version))
        if known is None:
            known = seal_value(self.dek, self.wrapped, PURPOSE, path, version, plaintext)
            # Only the latest is kept: under contention each round decides for another version.
            self._sealed = {(path, version): known}
        return known


class DataKeys:
    """Fresh data keys for writers."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._spare: list[DataKey] = []
        keys.on_sealed(self._spare.clear)

    async def take(self, deadline: float) -> DataKey | StrongBoxError:
        """A key, or why there is none: raised when the request is decided, if the guard has nothing to say.

        While the seal replicas begin a new life after sealing none answers; yet the answer is "sealed".
        """
        if self._keys.record_keys is None:
            return Sealed()
        while self._spare:
            spare = self._spare.pop()
            if spare.wrapped.term >= self._keys.record_keys.newest:
                return spare
        dek = Dek.fresh()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                (wrapped,) = await self._keys.wrap([dek])
        except (Sealed, DependencyDown) as error:
            return error
        except TimeoutError:
            raise DependencyDown("the seal service did not wrap a key in time") from None
        return DataKey(dek, wrapped)

    def give_back(self, key: DataKey | StrongBoxError) -> None:
        """Keep a key that was not used, if it can still be."""
        if not isinstance(key, DataKey) or not key.is_unused or self._keys.record_keys is None:
            return
        if len(self._spare) < MAX_SPARE:
            self._spare.append(key)


class Unwrapping:
    """The key of one envelope, asked for as soon as it is known which; leaving the context leaves nothing."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._wrapped: WrappedDek | None = None
        self._answer: asyncio.Future[list[bytes]] | None = None

    def __enter__(self) -> Unwrapping:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def start(self, wrapped: WrappedDek) -> None:
        """Ask for the key, unless it is asked for; another one asked for before is forgotten."""
        if self._answer is not None and wrapped == self._wrapped:
            return
        self._drop()
        self._wrapped = wrapped
        self._answer = self._keys.unwrap_soon(wrapped)

    async def key(self, wrapped: WrappedDek) -> bytes:
        """The data key. Raises `Sealed`, `DependencyDown`, and `Internal` for a wrapping that was altered."""
        self.start(wrapped)
        assert self._answer is not None
        (key,) = await self._answer
        if not key:
            _log.error("a wrapped data key does not authenticate", dek_id=wrapped.id.hex())
            raise Internal
        return key

    def _drop(self) -> None:
        if self._answer is None:
            return
        if not self._answer.done():
            self._answer.cancel()
        elif not self._answer.cancelled():
            self._answer.exception()  # taken, so that nobody is told that it was not
        self._answer = None
