"""What each process took of memory at most, beside what its container in the manifests may have.

The kernel's own mark is read (`VmHWM`: bytes resident, shared pages among them, so rather more than a
container is charged for); it starts anew with the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.k8s.manifests import workloads
from tests.robustness.stage import NAMES, NODES, Stage

_OVERLAY = "prod"
_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}
_WORKLOADS = {"envoy": "gateway"}  # where a process is not called like its workload


def limits() -> dict[str, int]:
    """Bytes by the process's name."""
    return {name: _limit(_WORKLOADS.get(name, name)) for name in NAMES}


def peaks(stage: Stage) -> dict[str, int]:
    """Bytes by the process's name: the most that one of any node has had since it started."""
    most = dict.fromkeys(NAMES, 0)
    for number in NODES:
        for name in NAMES:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                most[name] = max(most[name], _peak(stage.pid(number, name)))
    return most


def violations(most: dict[str, int], allowed: dict[str, int]) -> Iterator[str]:
    """Who would have been killed for it, and of whom nothing was seen."""
    for name, peak in most.items():
        if peak > allowed[name]:
            yield f"memory: {name} took {peak >> 20} MiB, its container has {allowed[name] >> 20}"
        if not peak:
            yield f"memory: nothing is known of {name}"


def line(most: dict[str, int], allowed: dict[str, int]) -> str:
    """For people."""
    told = (f"{name} {peak >> 20} of {allowed[name] >> 20}" for name, peak in most.items())
    return f"memory at most, MiB: {', '.join(told)}"


def _limit(workload: str) -> int:
    container = workloads(_OVERLAY)[workload]["spec"]["template"]["spec"]["containers"][0]
    text = str(container["resources"]["limits"]["memory"])
    return int(text[:-2]) * _UNITS[text[-2:]]


def _peak(pid: int) -> int:
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmHWM:"):
            return int(row.split()[1]) << 10
    return 0
