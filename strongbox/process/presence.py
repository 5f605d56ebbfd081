"""What a process says of itself in its session key: every other second, and when `unsealed` changes.

Anybody who may write to `nodes/` may leave junk there: whoever reads it passes that over (`told_in`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strongbox.process.runtime import Runtime


def presence_of(runtime: Runtime) -> bytes:
    """JSON: node, service, address (host:port to call it at), pid, clock_ms (its own), healthy, unsealed,
    incarnation (the audit producer's), trouble (what is wrong with it, "" if nothing is), duties (by name,
    when this process last got on with each, in milliseconds since the epoch; 0: never).

    `unsealed`: whether it has the record keys; false for the seal service, whose replicas say that elsewhere.
    """
    told = {
        "node": runtime.settings.node_id,
        "service": runtime.settings.service,
        "address": runtime.address,
        "pid": os.getpid(),
        "clock_ms": runtime.clock.now_ms(),
        "healthy": runtime.health.serving,
        "unsealed": runtime.is_unsealed,
        "incarnation": runtime.journal.incarnation,
        "trouble": runtime.trouble,
        "duties": runtime.successes,
    }
    return json.dumps(told).encode()


def told_in(presence: bytes) -> Mapping[str, Any]:
    """What a process says of itself; nothing when nobody can read it."""
    try:
        told = json.loads(presence)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def address_in(presence: bytes) -> str:
    """Where to call it; "" when that is not told."""
    address = told_in(presence).get("address")
    return address if isinstance(address, str) else ""
