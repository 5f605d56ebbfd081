"""Data keys: wrapped before a value is sealed, unwrapped while etcd proves that it may be read.

* A key is wrapped before the request is decided, since deciding waits for nothing. A key under which no value
  was sealed goes to the next writer, so that refused requests do not use up the wraps of a key term.
* A key belongs to one request at a time, and the request (`Sealing`), not the key, remembers what was sealed.
  So a request that has given its key back cannot seal with it, however late it is decided.
* A key wrapped under an older term than the one in use is thrown away (`Stale`), since that term will be
  retired.
* Spare keys are unencrypted in memory. They are few (`MAX_SPARE`), and dropped when the cluster is sealed.
* An unwrap that nobody waits for any more is cancelled, and its error is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from strongbox.crypto.envelope import Dek, Envelope, WrappedDek, seal_value
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown, Sealed, StrongBoxError

PURPOSE = "kv"
MAX_SPARE = 32


class Keys(Protocol):
    """What is asked of the seal service (strongbox.rpc.key_client.KeyClient)."""

    @property
    def record_keys(self) -> RecordKeys | None:
        """None: sealed."""

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Raises `Sealed`, `DependencyDown`."""

    def unwrap_soon(self, wrapped: WrappedDek) -> asyncio.Future[list[bytes]]:
        """One key, when the answer comes; empty when it does not open. Raises `Sealed`, `DependencyDown`."""

    def on_sealed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the cluster is sealed."""


class Stale(DependencyDown):
    """A data key was wrapped under a term that is no longer in use; another one has to be taken."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A fresh key with its wrapping, for one value."""

    dek: Dek
    wrapped: WrappedDek


class Sealing:
    """One request's value and the key it is sealed under, until the request is over."""

    def __init__(self, key: DataKey, plaintext: bytes) -> None:
        self._key: DataKey | None = key
        self._plaintext = plaintext
        self._sealed: tuple[str, int, Envelope] | None = None
        self.term = key.wrapped.term

    def seal(self, path: str, version: int) -> Envelope:
        """The value sealed as a version; deciding again for the same version returns the same envelope.

        Raises RuntimeError (a programming error) when the request is over: another request may have its key.
        """
        if self._key is None:
            raise RuntimeError("a value was to be sealed for a request that is over")
        if self._sealed is None or self._sealed[:2] != (path, version):
            # Only the latest is kept: under contention each round decides for another version. Sealing
            # several versions of one value under one key is safe: each has a nonce of its own, and only one
            # is stored.
            sealed = seal_value(self._key.dek, self._key.wrapped, PURPOSE, path, version, self._plaintext)
            self._sealed = path, version, sealed
        return self._sealed[2]

    def end(self) -> DataKey | None:
        """End the request; returns its key if nothing was ever sealed under it."""
        key, self._key = self._key, None
        return key if self._sealed is None else None


class DataKeys:
    """Fresh data keys for writers."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._spare: list[DataKey] = []
        keys.on_sealed(self._spare.clear)

    async def take(self, deadline: float, plaintext: bytes) -> Sealing | StrongBoxError:
        """A key for this value, or the error to raise when the request is decided, after the guard.

        Whoever takes one gives it back (`give_back`). While the cluster is sealed this is `Sealed`, even if
        no seal replica answers because they are restarting.
        """
        if self._keys.record_keys is None:
            return Sealed()
        while self._spare:
            spare = self._spare.pop()
            if spare.wrapped.term >= self._keys.record_keys.newest:
                return Sealing(spare, plaintext)
        dek = Dek.fresh()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                (wrapped,) = await self._keys.wrap([dek])
        except (Sealed, DependencyDown) as error:
            return error
        except TimeoutError:
            raise DependencyDown("the seal service did not wrap a key in time") from None
        return Sealing(DataKey(dek, wrapped), plaintext)

    def give_back(self, sealing: Sealing | StrongBoxError) -> None:
        """End the request; keep its key if it is unused, the cluster unsealed, and there is room."""
        key = sealing.end() if isinstance(sealing, Sealing) else None
        if key is None or self._keys.record_keys is None:
            return
        if len(self._spare) < MAX_SPARE:
            self._spare.append(key)


class Unwrapping:
    """Unwraps envelopes' keys as soon as it is known which are needed; leaving the context drops them all."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._answers: dict[WrappedDek, asyncio.Future[list[bytes]]] = {}
        self._is_over = False

    def __enter__(self) -> Unwrapping:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self.start(())

    def start(self, wanted: Iterable[WrappedDek]) -> None:
        """Ask for those of these keys that are not asked for yet; drop the requests for others.

        Once the context is left, nothing is asked for.
        """
        several = frozenset(() if self._is_over else wanted)
        for wrapped in self._answers.keys() - several:
            _drop(self._answers.pop(wrapped))
        for wrapped in several - self._answers.keys():
            self._answers[wrapped] = self._keys.unwrap_soon(wrapped)

    async def key(self, wrapped: WrappedDek) -> bytes:
        """A data key that was asked for; empty when the wrapping does not open.

        Raises `Sealed`, `DependencyDown`.
        """
        (key,) = await self._answers[wrapped]
        return key


def _drop(answer: asyncio.Future[list[bytes]]) -> None:
    if not answer.done():
        answer.cancel()
    elif not answer.cancelled():
        answer.exception()  # fetched, so that asyncio does not log it as never retrieved
