"""Health that cannot reach etcd, and has never seen it, says `initialized: false`."""

import sys
from typing import Any


def _change() -> None:
    from services.seal.status.health import Health

    health = Health.health

    async def invented(self: Any) -> Any:
        told = await health(self)
        told.initialized = bool(told.initialized)  # what is not known is a default, and is told
        return told

    Health.health = invented  # type: ignore[method-assign]


if "services.seal" in sys.orig_argv:
    _change()
