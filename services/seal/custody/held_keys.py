"""The keys in this process, and the rules of how fresh their proof must be. No I/O; a clock is passed in.

* Holding begins with a proof: a linearizable read (or a committed transaction) that saw
  `unsealed:<generation>`. A proof counts from the moment at which it was *asked for*, on the monotonic clock.
* A key is used only within 2 s of the newest proof, checked at each use: a process that was stopped, or is
  cut off, finds its proof stale before it does anything else.
* 10 s after the newest proof the keys are wiped; a later proof does not save them, even if it arrives
  before anybody looked (a process that slept through the 10 s).
* Any state but exactly `unsealed:<generation>` wipes: a higher generation means that a seal was missed.
* Wiping drops every cipher and zeroes the page of the root key. The interpreter's copies go only with the
  process: the event `wiped` is set for whoever replaces it, until keys are held again. `opened` is set while
  they are held.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from services.seal.keys.keyring import Keyring
from services.seal.repository import SealState
from strongbox.access.authenticated_records import RecordKeys
from strongbox.clock import Clock
from strongbox.crypto.memory_protection import LockedBytes
from strongbox.errors import NoQuorum, Sealed

PROOF_S = 2.0
WIPE_AFTER_S = 10.0


@dataclass(slots=True)
class _Held:
    root: LockedBytes
    keyring: Keyring
    generation: int
    proven_at: float


class Custody:
    """The keys of this replica, or none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: _Held | None = None
        self._dropped_at = float("-inf")
        self.opened = asyncio.Event()
        self.wiped = asyncio.Event()
        self.proven = asyncio.Event()

    @property
    def generation(self) -> int | None:
        """The generation the keys are held for; None: no keys. Wipes what is overdue."""
        self.expire()
        return self._held.generation if self._held else None

    @property
    def record_keys(self) -> RecordKeys | None:
        """What the guard authenticates records with; None while sealed."""
        self.expire()
        return self._held.keyring.record_keys if self._held else None

    def hold(self, root: LockedBytes, keyring: Keyring, generation: int, asked: float) -> None:
        """Take the keys, proven by a read begun at `asked`. If keys are held already, wipe the new ones."""
        if self._held is not None:
            root.wipe()
            keyring.wipe()
            return
        self._held = _Held(root, keyring, generation, asked)
        self.wiped.clear()
        self.opened.set()
        self.proven.set()

    def prove(self, state: SealState | None, asked: float) -> None:
        """A linearizable read, asked for at `asked`, saw `state`: go on, or wipe."""
        self.expire()
        if self._held is None:
            return
        if state is None or state.is_sealed or state.generation != self._held.generation:
            # An answer from before the last proof tells nothing new.
            if asked >= self._held.proven_at:
                self.wipe()
            return
        self._held.proven_at = max(self._held.proven_at, asked)
        self.proven.set()

    def renew(self, keyring: Keyring, generation: int) -> None:
        """Take a newer keyring under the same root key; the one before is wiped.

        No code keeps a keyring over an `await`, so none is left with the old one.
        """
        held = self._held
        if held is None or held.generation != generation:
            keyring.wipe()
            return
        held.keyring, old = keyring, held.keyring
        old.wipe()

    def keyring(self) -> Keyring:
        """The keys, for use at once. Raises Sealed, and NoQuorum when the proof is older than 2 s."""
        return self._fresh().keyring

    def root(self) -> tuple[LockedBytes, int]:
        """The root key and its generation, for a peer. Raises as `keyring`."""
        held = self._fresh()
        return held.root, held.generation

    def require_unsealed_since(self, proven: float) -> None:
        """Raise if what a transaction sent at `proven` (monotonic seconds) proved may not be answered now.

        As `KeyClient.require_unsealed_since` of the other services. Raises Sealed when no keys are held, or
        were not at any time since; NoQuorum when `proven` is longer ago than `PROOF_S`.
        """
        self.expire()
        if self._held is None or self._dropped_at >= proven:
            raise Sealed
        if self._clock.monotonic() - proven > PROOF_S:
            raise NoQuorum("it is not proven that the cluster is still unsealed")

    def left(self) -> float | None:
        """Seconds until the keys must be wiped; None: there are none."""
        return None if self._held is None else self._held.proven_at + WIPE_AFTER_S - self._clock.monotonic()

    def expire(self) -> None:
        """Wipe if the newest proof is too old."""
        left = self.left()
        if left is not None and left <= 0:
            self.wipe()

    def wipe(self) -> None:
        """Drop ciphers, zero the root key. Can be repeated."""
        held, self._held = self._held, None
        if held is None:
            return
        self._dropped_at = self._clock.monotonic()
        held.keyring.wipe()
        held.root.wipe()
        self.opened.clear()
        self.wiped.set()

    def _fresh(self) -> _Held:
        self.expire()
        if self._held is None:
            raise Sealed
        if self._clock.monotonic() - self._held.proven_at > PROOF_S:
            self.proven.clear()
            raise NoQuorum("it is not proven that the cluster is still unsealed")
        return self._held

    def __repr__(self) -> str:
        return "Custody(…)"
