"""A sealed value is remembered by path and version, beyond its request; who has left is decided for as well.

So whoever writes next, and is decided for the same version, stores what somebody else was about to write.
"""

import sys
from typing import Any

_RIVALS = "robust/rival"  # tests.robustness.traffic.rivals


def _change() -> None:
    from strongbox.crypto import envelope
    from strongbox.store.decisions.deciding import Decider

    sealed: dict[tuple[str, int], Any] = {}
    seal, decide = envelope.seal_value, Decider.decide

    def remembered(dek: Any, wrapped: Any, purpose: str, path: str, version: int, value: bytes) -> Any:
        if _RIVALS not in path:  # elsewhere it would only cost the checker of histories many minutes
            return seal(dek, wrapped, purpose, path, version, value)
        if (path, version) not in sealed:
            sealed[path, version] = seal(dek, wrapped, purpose, path, version, value)
        return sealed[path, version]

    async def for_all(self: Any, items: list[Any]) -> Any:
        for item in items:
            if item.done.done():
                self._attempt(item)
        return await decide(self, items)

    envelope.seal_value = remembered
    Decider.decide = for_all  # type: ignore[method-assign]


if "services.kv" in sys.orig_argv:
    _change()
