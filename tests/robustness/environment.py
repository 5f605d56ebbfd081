"""What the fault suite brings into the processes of the cluster that it attacks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_BROUGHT = {
    "PYTHONPATH": str(Path(__file__).parent / "inside"),
    # What is pending is tried again soon, and roles are compared with leases often: a run is short.
    "STRONGBOX_REVOKE_BACKOFF_S": "1",
    "STRONGBOX_REVOKE_BACKOFF_CAP_S": "4",
    "STRONGBOX_RECONCILE_EVERY_S": "3",
}


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Whatever is started meanwhile has it."""
    before = {name: os.environ.get(name) for name in _BROUGHT}
    os.environ.update(_BROUGHT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
