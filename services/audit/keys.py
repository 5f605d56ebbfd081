"""The chain's HMAC key in this process: opened while the cluster is unsealed, gone when it is sealed.

It was made at init and stands in etcd at `audit/key`, encrypted under a data key that the seal service
wrapped for the purpose `audit`; only an audit certificate gets it unwrapped.
"""

from __future__ import annotations

from strongbox.errors import Sealed


class ChainKey:
    """The key, or nothing."""

    def __init__(self) -> None:
        self._key: bytes | None = None

    def __repr__(self) -> str:
        return "ChainKey(…)"

    def require(self) -> bytes:
        """The 32 bytes. Raises Sealed."""
        if self._key is None:
            raise Sealed
        return self._key

    def hold(self, key: bytes) -> None:
        """The cluster is unsealed."""
        self._key = key

    def drop(self) -> None:
        """The cluster is sealed."""
        self._key = None
