"""How much longer than on an idle machine things may take here: only availability is judged by it.

The suite itself keeps two cores busy (a load of some 2 for each). What waits for a core beyond that is the
work of others, and every time that is measured grows with it.
"""

from __future__ import annotations

import os

_OWN = 3.0  # of load for each core, that of the suite itself


class Slack:
    """Looks at the machine's load from time to time; `worst` is the largest factor seen."""

    def __init__(self) -> None:
        self.worst = 1.0

    def now(self) -> float:
        """By how much times may be longer now: 1 on a machine that does nothing else."""
        factor = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / _OWN)
        self.worst = max(self.worst, factor)
        return factor
