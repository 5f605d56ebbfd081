"""What the logs say of a time in which something did not recover: for who has the report and no machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_SOURCES = ("etcd", "seal")  # what everything else waits for
_MOST = 8  # messages of one process
_WORTH = ("warn", "warning", "error", "fatal", "critical")


def lines(folder: Path, nodes: list[str], since: datetime) -> Iterator[str]:
    """Warnings of etcd and seal since then (true time), the most frequent of each process."""
    for node in nodes:
        for source in _SOURCES:
            told = _warnings(folder / node / "logs" / f"{source}.log", since.astimezone(UTC))
            for message, times in told.most_common(_MOST):
                yield f"    {node} {source} {times:>5} x {message[:110]}"


def _warnings(log: Path, since: datetime) -> Counter[str]:
    found: Counter[str] = Counter()
    if not log.is_file():
        return found
    with log.open(encoding="utf-8", errors="replace") as written:
        for line in written:
            try:
                entry = json.loads(line)
                at = datetime.fromisoformat(entry.get("ts") or entry["timestamp"])
            except (ValueError, KeyError, AttributeError):
                continue
            if entry.get("level") in _WORTH and at >= since:
                found[str(entry.get("msg") or entry.get("event"))] += 1
    return found
