"""A process's memory searched from outside, as root may: which of these secrets is in it, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_CHUNK = 16 << 20


def copies(pid: int, needles: Mapping[str, bytes]) -> dict[str, int]:
    """How often each needle is found in what `pid` has mapped and may write. Raises PermissionError.

    A process that is gone has nothing. Read-only mappings are pages of files.
    """
    found = dict.fromkeys(needles, 0)
    longest = max(map(len, needles.values()))
    try:
        regions = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for region in regions:
                if region[1].startswith("rw"):
                    first, last = (int(end, 16) for end in region[0].split("-"))
                    for at in range(first, last, _CHUNK):
                        _search(memory, at, min(last, at + _CHUNK + longest), needles, found, at + _CHUNK)
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def _search(
    memory: object, first: int, last: int, needles: Mapping[str, bytes], found: dict[str, int], end: int
) -> None:
    """Count what begins before `end`; the overlap beyond belongs to the next chunk."""
    try:
        memory.seek(first)  # type: ignore[attr-defined]
        data = memory.read(last - first)  # type: ignore[attr-defined]
    except (OSError, ValueError):  # special mappings cannot be read
        return
    for name, needle in needles.items():
        at = data.find(needle)
        while at >= 0 and first + at < end:
            found[name] += 1
            at = data.find(needle, at + 1)
