"""The audit keys in this process: opened while the cluster is unsealed, gone when it is sealed.

* The chain's HMAC key of term 1 was made at init and stands in etcd at `audit/key`; later terms stand at
  `audit/keys/<term>`, put once, in the transaction of the record that announces them. So a term holds from
  the record whose revision created its key: somebody who can only write to etcd can neither announce a term
  (a key put there by others does not open) nor move an announcement (another record has another revision).
* The signing key of checkpoints is made at first need, at `audit/signing-key`.
* All of them are enveloped under data keys that the seal service wrapped for the purpose `audit`; only an
  audit certificate gets them unwrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from strongbox.crypto.ed25519 import SigningKey
from strongbox.errors import Sealed


@dataclass(frozen=True, slots=True)
class OpenKeys:
    """`chain`: HMAC keys (32 bytes) by term; `created`: the revision each term's record was put at.

    `origin` names the log in checkpoints.
    """

    chain: Mapping[int, bytes] = field(repr=False)
    created: Mapping[int, int]
    signing: SigningKey
    origin: str


class AuditKeys:
    """The keys, or nothing. `load` reads and opens them all."""

    def __init__(self, load: Callable[[], Awaitable[OpenKeys]]) -> None:
        self._load = load
        self._keys: OpenKeys | None = None
        self._sealings = 0

    def __repr__(self) -> str:
        return "AuditKeys(…)"

    def require(self) -> OpenKeys:
        """The open keys. Raises Sealed."""
        if self._keys is None:
            raise Sealed
        return self._keys

    async def open(self) -> OpenKeys:
        """Open them again. Raises what `load` does, and Sealed when the cluster was sealed meanwhile."""
        before = self._sealings
        keys = await self._load()
        if self._sealings != before:
            raise Sealed
        self._keys = keys
        return keys

    def drop(self) -> None:
        """Forget the keys: the cluster is sealed."""
        self._sealings += 1
        self._keys = None

    async def is_announced(self, term: int, revision: int) -> bool:
        """Whether the record at `revision` is the one that made this term's key. Raises as `open`."""
        if term not in self.require().chain:
            await self.open()
        return self.require().created.get(term) == revision
