"""A credential's lease is REVOKED without its role being taken away."""

import sys
from typing import Any


def _change() -> None:
    from services.lease.postgres.ending import drop_roles

    def nothing(*_: Any) -> dict[str, str]:
        return {}

    drop_roles.remove = nothing


if "services.lease" in sys.orig_argv:
    _change()
