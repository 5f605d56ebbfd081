"""What a service asks of the seal service: wrap and unwrap data keys, hold the record keys while unsealed.

* Own node's replica first; after a failure or a slow answer (0.5 s) the next, and the slow one not for 2 s.
  Wrapping and unwrapping twice is the same as once, so asking again elsewhere is always safe.
* What is asked within one tick of the event loop goes as one request.
* A replica that says SEALED is not the cluster (it may have just restarted): the others are asked too. The
  cluster counts as sealed when all that answer say so, or when nothing good was heard for 2 s. Then the
  record keys are dropped at once.
* A process without record keys lets a replica answer late, as soon as it has them, and then asks again almost
  at once: so it hears of unsealing within milliseconds, with one to three questions a second.
* Wrapping, and the record keys, are asked for under the term that is known to be in use: a replica that has
  not heard of it looks, or is passed over. So nobody goes back to an older term: a rewrap that took it for
  the newest would leave records under it, which are lost when it is retired.
* All replicas are kept connected, also those that nothing is asked of: one that was replaced has another
  address, and a lookup, a connection and a handshake would take the time that a question has.
* Nothing here is the proof that the cluster is unsealed: every decision compares the seal state in etcd.
* That proof is not good for ever either: an answer that rests on it leaves within `PROOF_S`, or not at all
  (`require_unsealed_since`). So `seal` can say from when on no answer leaves, even of a stopped process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from strongbox.crypto.envelope import Dek, WrappedDek
from strongbox.crypto.errors import IntegrityError
from strongbox.crypto.record_keys import RecordKeys
from strongbox.errors import DependencyDown, NoQuorum, NotInitialized, Sealed, StrongBoxError, Unavailable
from strongbox.rpc.batching import Batching
from strongbox.rpc.channel import TlsFiles, open_channel
from strongbox.rpc.error_mapping import from_reason
from strongbox.rpc.seal_stream import Link, LinkDown
from strongbox.seal.v1 import seal_peer_service_pb2 as pb

ATTEMPT = 0.5  # seconds for one replica
DEADLINE = 1.5  # seconds for one question
ASK_SEALED = 0.25  # seconds from question to question while sealed, when no replica kept the answer back
PAUSE = 0.02  # seconds at least between questions
ASK_UNSEALED = 0.5  # seconds between questions while unsealed
FORGET_AFTER = 2.0  # seconds without any answer
PROOF_S = 2.0  # seconds for which a transaction that compared the seal state allows a value to leave
SEAL = "seal"
_SEALED = (Sealed, NotInitialized)
_log = structlog.get_logger(__name__)


class KeySettings(TlsFiles, Protocol):
    """What is needed of strongbox.config.Settings."""

    @property
    def seal_addresses(self) -> tuple[str, ...]: ...


class KeyClient:
    """One per process, for the purpose that its certificate names."""

    def __init__(self, settings: KeySettings) -> None:
        self._links = [
            Link(address, partial(open_channel, address, SEAL, settings))
            for address in settings.seal_addresses
        ]
        self._record_keys: RecordKeys | None = None
        self._unsealed = asyncio.Event()
        self.heard = asyncio.Event()  # set for good when a seal replica has given keys, or said "sealed"
        self._callbacks: list[Callable[[], None]] = []
        self._opened: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._dropped_at = float("-inf")
        self._wraps = Batching(self._wrap_all)
        self._unwraps = Batching(self._unwrap_all)
        self._rewraps = Batching(self._rewrap_all)

    @property
    def record_keys(self) -> RecordKeys | None:
        """The record keys; None: sealed, or not known yet."""
        return self._record_keys

    def require_unsealed_since(self, proven: float) -> None:
        """Raise unless what was decided under a proof asked for at `proven` may still leave this process.

        `proven`: `time.monotonic()` before the transaction that compared the seal state was submitted.
        Raises Sealed when the record keys are away, or were at any time since; NoQuorum when the proof is
        older than `PROOF_S`.

        Promise: if the cluster's sealing was committed at T, no process lets an answer pass from
        T + `PROOF_S` on, nor this process once it has heard of the sealing. The clock is the monotonic one,
        which goes on while a process is stopped (SIGSTOP): when it continues, its proof is too old.
        The check compares three numbers, so it is made for every answer; strongbox.rpc.revealing makes it
        last, with no `await` between it and the answer.
        """
        if self._record_keys is None or self._dropped_at >= proven:
            raise Sealed
        if time.monotonic() - proven > PROOF_S:
            raise NoQuorum("it is not proven that the cluster is still unsealed")

    async def start(self) -> None:
        """Begin to ask; returns at once."""
        self._task = asyncio.create_task(self._watch(), name="record keys")

    async def close(self) -> None:
        """Stop asking and forget the keys, without calling anybody back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._record_keys = None
        for link in self._links:
            await link.close()

    def renew(self) -> None:
        """The certificate was renewed: ask with it from now on."""
        for link in self._links:
            link.renew()

    async def wait_unsealed(self) -> None:
        """Return once the record keys are here."""
        await self._unsealed.wait()

    def on_sealed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time the record keys are dropped."""
        self._callbacks.append(callback)

    def on_unsealed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time record keys arrive where there were none."""
        self._opened.append(callback)

    async def wrap(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        """Each data key wrapped under the term in use. Raises Sealed, DependencyDown."""
        return await self._wraps.ask(deks)

    async def rewrap(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        """Each wrapped key under the term in use; None where one does not open.

        The data keys themselves never come here. Raises Sealed, DependencyDown.
        """
        return await self._rewraps.ask(wrapped)

    async def unwrap(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        """The data keys (32 bytes each).

        Raises Sealed, DependencyDown; IntegrityError when one of them does not open.
        """
        keys = await self._unwraps.ask(wrapped)
        if not all(keys):
            raise IntegrityError
        return keys

    def unwrap_soon(self, wrapped: WrappedDek) -> asyncio.Future[list[bytes]]:
        """`unwrap` of one key, to be awaited later; it is answered within `DEADLINE`.

        The answer's one item is empty when the key does not open.
        """
        return self._unwraps.soon((wrapped,))

    async def _wrap_all(self, deks: Sequence[Dek]) -> list[WrappedDek]:
        request = pb.StreamKeysRequest(
            wrap=[pb.DataKey(id=dek.id, key=dek.key) for dek in deks], term=self._term()
        )
        answer = await self._ask(request, time.monotonic() + DEADLINE)
        found = [WrappedDek(w.id, w.term, w.ciphertext, w.tag, w.nonce) for w in answer.wrapped]
        _require_same_ids([dek.id for dek in deks], [one.id for one in found])
        return found

    async def _rewrap_all(self, wrapped: Sequence[WrappedDek]) -> list[WrappedDek | None]:
        request = pb.StreamKeysRequest(rewrap=map(_to_proto, wrapped), term=self._term())
        answer = await self._ask(request, time.monotonic() + DEADLINE)
        _require_same_ids([one.id for one in wrapped], [one.id for one in answer.wrapped])
        return [
            WrappedDek(w.id, w.term, w.ciphertext, w.tag, w.nonce) if w.ciphertext else None
            for w in answer.wrapped
        ]

    def _term(self) -> int:
        return self._record_keys.newest if self._record_keys is not None else 0

    async def _unwrap_all(self, wrapped: Sequence[WrappedDek]) -> list[bytes]:
        # Many readers of one hot secret ask for the same key: it goes once.
        several = list(dict.fromkeys(wrapped))
        request = pb.StreamKeysRequest(unwrap=map(_to_proto, several))
        answer = await self._ask(request, time.monotonic() + DEADLINE)
        _require_same_ids([one.id for one in several], [key.id for key in answer.unwrapped])
        found = {one: key.key for one, key in zip(several, answer.unwrapped, strict=True)}
        return [found[one] for one in wrapped]

    async def _ask(self, request: pb.StreamKeysRequest, deadline: float) -> pb.StreamKeysResponse:
        """The first good answer of any replica. Raises what they refused with, else DependencyDown."""
        refusal: StrongBoxError | None = None
        for link in self._in_order():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                answer = await link.ask(request, min(ATTEMPT, left))
            except LinkDown:
                continue
            if not answer.error:
                return answer
            said = from_reason(answer.error)
            if not isinstance(said, Unavailable):
                raise said
            # A replica without quorum knows less than one that is sealed; so the cluster may be unsealed.
            if refusal is None or isinstance(refusal, _SEALED):
                refusal = said
        raise refusal or DependencyDown("no seal replica answers")

    def _in_order(self) -> list[Link]:
        """Own node's first, those to be avoided last."""
        now = time.monotonic()
        return sorted(self._links, key=lambda link: link.bad_until > now)

    async def _watch(self) -> None:
        while True:
            next_at = time.monotonic() + ASK_SEALED
            try:
                await self._refresh()
                for link in self._links:
                    link.stay_connected()
            except Exception:  # noqa: BLE001  after a defect here too the keys must be dropped in time
                _log.exception("asking for the record keys failed")
                self._forget_late()
            left = next_at - time.monotonic()
            await asyncio.sleep(ASK_UNSEALED if self._record_keys is not None else max(PAUSE, left))

    async def _refresh(self) -> None:
        request = pb.StreamKeysRequest(record_keys=True, wait=self._record_keys is None, term=self._term())
        try:
            answer = await self._ask(request, time.monotonic() + DEADLINE)
        except _SEALED:
            self.heard.set()
            self._drop()
            return
        except StrongBoxError:
            self._forget_late()
            return
        found = {key.term: key.key for key in answer.record_keys}
        self._hold(RecordKeys(found, answer.term if answer.term in found else max(found)))

    def _hold(self, keys: RecordKeys) -> None:
        self._heard_at = time.monotonic()
        self.heard.set()
        known, self._record_keys = self._record_keys, keys
        if keys != known:
            _log.info("the record keys arrived", newest=keys.newest)
        self._unsealed.set()
        if known is None:
            for callback in self._opened:
                callback()

    def _forget_late(self) -> None:
        if time.monotonic() - self._heard_at > FORGET_AFTER:
            self._drop()

    def _drop(self) -> None:
        if self._record_keys is None:
            return
        self._record_keys = None
        self._dropped_at = time.monotonic()
        self._unsealed.clear()
        _log.warning("the record keys were dropped")
        for callback in self._callbacks:
            callback()


def _to_proto(w: WrappedDek) -> pb.WrappedDataKey:
    return pb.WrappedDataKey(id=w.id, term=w.term, ciphertext=w.ciphertext, tag=w.tag, nonce=w.nonce)


def _require_same_ids(asked: Sequence[bytes], answered: Sequence[bytes]) -> None:
    """Raise DependencyDown unless the answer is for the keys that were asked about, in order."""
    if list(asked) != list(answered):
        raise DependencyDown("the seal service answered something else")
