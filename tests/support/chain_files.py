"""The audit logs of a cluster's replicas, as files: what is in them, and whether they are one chain."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.clients import Refused, RestClient
from tests.support.cluster import ROOT, Cluster


def files_of(cluster: Cluster, node: str) -> list[Path]:
    """The segments of one replica's log, in order."""
    return sorted((cluster.folder / node / "audit").glob("**/*.jsonl"))


def lines_of(cluster: Cluster, node: str) -> list[bytes]:
    """Its entries as they are written; a line that is still being written is left out."""
    text = b"".join(file.read_bytes() for file in files_of(cluster, node))
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)


def entries_of(cluster: Cluster, node: str) -> Iterator[dict[str, Any]]:
    """Its entries."""
    return (json.loads(line) for line in lines_of(cluster, node))


def require_one_chain(cluster: Cluster, root: RestClient, seconds: float = 30.0) -> int:
    """All replicas' logs hold the same entries up to the head that is served now, and verify by their key.

    Returns how many entries that is. Raises AssertionError, after `seconds` at most.
    """
    head = int(_patiently(root, "GET", "/v1/audit?limit=1", seconds)["head"]["index"])
    logs = _until_all_have(cluster, head + 1, seconds)
    first = cluster.node_ids[0]
    for node, lines in logs.items():
        for index, (line, same) in enumerate(zip(lines, logs[first], strict=False)):
            assert line == same, f"entry {index} differs at {node} and {first}"
    key = _patiently(root, "POST", "/v1/audit/export-key", seconds)["key"]
    _verify(cluster, str(key))
    return head + 1


def _until_all_have(cluster: Cluster, size: int, seconds: float) -> dict[str, list[bytes]]:
    deadline = time.monotonic() + seconds
    while True:
        logs = {node: lines_of(cluster, node) for node in cluster.node_ids}
        short = {node: len(lines) for node, lines in logs.items() if len(lines) < size}
        if not short:
            return logs
        assert time.monotonic() < deadline, f"{size} entries are acknowledged, and there are {short}"
        time.sleep(0.1)


def _patiently(root: RestClient, method: str, path: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return root.call(method, path, {} if method == "POST" else None)
        except Refused as refusal:
            if refusal.http not in (503, 504) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _verify(cluster: Cluster, key: str) -> None:
    """By the command that people use, each replica's files by themselves."""
    for node in cluster.node_ids:
        done = subprocess.run(
            [sys.executable, "-m", "strongbox.audit_log.verify_command", *map(str, files_of(cluster, node)),
             "--key-file", "/dev/stdin"],
            input=key, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, f"{node}: {done.stdout}{done.stderr}"
