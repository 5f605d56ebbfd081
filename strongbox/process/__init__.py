"""How a service process lives: `run(service, assemble)`; what it is made of: `Runtime`."""

from __future__ import annotations

from strongbox.process.lifecycle import run
from strongbox.process.runtime import Runtime

__all__ = ["Runtime", "run"]
