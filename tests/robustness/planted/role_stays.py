"""A credential's lease is REVOKED without its role being taken away."""

import sys
from typing import Any


def _change() -> None:
    from services.lease.postgres import removal

    def nothing(*_: Any) -> dict[str, str]:
        return {}

    removal.remove = nothing


if "services.lease" in sys.orig_argv:
    _change()
