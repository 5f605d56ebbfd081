"""What a process says of itself in its session key: every other second, and when `unsealed` changes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

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
