"""What a process says of itself in its session key, renewed about every other second."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongbox.process.runtime import Runtime


def presence_of(runtime: Runtime) -> bytes:
    """JSON: node, service, address (host:port to call it at), pid, clock_ms (its own clock), healthy."""
    told = {
        "node": runtime.settings.node_id,
        "service": runtime.settings.service,
        "address": runtime.address,
        "pid": os.getpid(),
        "clock_ms": runtime.clock.now_ms(),
        "healthy": runtime.health.serving,
    }
    return json.dumps(told).encode()
