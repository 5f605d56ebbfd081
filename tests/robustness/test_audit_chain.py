"""Audit replicas and producers are killed every few seconds under load: the chain loses and repeats nothing.

What is asked at the end: every acknowledged request has its entry; every record of every producer is there
once; a request with two entries was tried twice (its first answer died with a process); the logs are one, it
verifies by both proofs, and no replica missed a batch.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongbox.audit_log.verify_command import main as verify
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.expect import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.heavy, pytest.mark.timeout(900)]
SECONDS = 300.0
CLIENTS = 6
VICTIMS = ("audit", "kv", "audit", "auth", "audit", "lease")
_LEAST_KILLS, _LEAST_REQUESTS = 30, 3000
_RULES = [
    {"path": "secret/chained/*", "capabilities": ["read", "write", "delete", "list", "metadata"]},
    {"path": "audit", "capabilities": ["read"]},
]


class Client:
    """One client of a mixed load; remembers the request id of all that was acknowledged."""

    def __init__(self, cluster: Cluster, token: str, number: int, until: float) -> None:
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._rest = cluster.rest(token, number % 3)
        self._path, self._until = f"chained/{number}", until
        self._dice = random.Random(number)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        self._send("PUT", f"/v1/secrets/{self._path}", {"value": "first"})
        while time.monotonic() < self._until:
            kind = self._dice.randrange(10)
            if kind < 5:
                self._send("GET", f"/v1/secrets/{self._path}")
            elif kind < 8:
                self._send("PUT", f"/v1/secrets/{self._path}", {"value": "x" * 50})
            elif kind == 8:
                self._send("GET", "/v1/secrets-list/chained")
            else:
                self._send("GET", "/v1/tokens/self")
        self._rest.close()

    def _send(self, method: str, path: str, body: Any = None) -> None:
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._rest.raw(
                method, path, content, f"{self._dice.getrandbits(64):x}" if content else ""
            )
        except httpx.HTTPError as error:
            self.failures.append(f"{type(error).__name__} {error}")
            return
        if answer.status_code == 200:
            self.acknowledged.append(answer.headers["x-request-id"])
        else:
            self.failures.append(f"{method} {path}: {answer.text[:300]}")


def test_every_acknowledged_operation_is_in_the_chain_whatever_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster.start(3) as cluster:
        with cluster.rest(cluster.root_token, 0, Patience()) as root:
            root.call("PUT", "/v1/policies/chained", {"rules": _RULES})
            token = str(root.call("POST", "/v1/tokens", {"policies": ["chained"], "ttl": "1h"})["token"])
        until = time.monotonic() + SECONDS
        clients = [Client(cluster, token, number, until) for number in range(CLIENTS)]
        kills = _kill_until(cluster, until)
        for client in clients:
            client.thread.join(30)
        failures = [text for client in clients for text in client.failures]
        acknowledged = [each for client in clients for each in client.acknowledged]
        entries = _require_one_log(cluster, tmp_path)
        found = Counter(entry["request_id"] for entry in entries)
        twice = sum(found[each] > 1 for each in acknowledged)
        with capsys.disabled():
            print(
                f"\n{len(acknowledged)} acknowledged, {len(failures)} failed, {kills} kills, "
                f"{len(entries)} entries, {twice} requests tried twice"
            )
        assert [each for each in acknowledged if not found[each]] == []
        records = Counter((entry["producer"], entry["producer_seq"]) for entry in entries)
        assert [record for record, count in records.items() if count > 1] == []
        _require_tried_again(entries, acknowledged)
        assert failures == []
        assert kills >= _LEAST_KILLS
        assert len(acknowledged) >= _LEAST_REQUESTS


def _kill_until(cluster: Cluster, until: float) -> int:
    """One process at a time, each started again before the next is killed."""
    kills = 0
    while time.monotonic() < until - 10:
        node = cluster.node_ids[kills % 3]
        cluster.process(node, VICTIMS[kills % len(VICTIMS)]).kill()
        kills += 1
        time.sleep(1.0)
        cluster.up(node=node, unseal=False)
        time.sleep(1.5)
    return kills


def _require_one_log(cluster: Cluster, folder: Path) -> list[dict[str, Any]]:
    """The three replicas' logs are the same, verify by both proofs, and no batch was missed."""
    with cluster.rest(cluster.root_token, 0, Patience()) as root:
        names = {"key": "key", "public": "public_key", "checkpoint": "checkpoint"}
        asked = {
            "key": root.call("POST", "/v1/audit/export-key", {}),
            "public": root.call("GET", "/v1/audit/public-key"),
            "checkpoint": root.call("GET", "/v1/audit/checkpoint"),
        }
        for name, answer in asked.items():
            (folder / name).write_text(answer[names[name]])
        size = int(asked["checkpoint"]["size"])
    logs = [eventually(30, _log_of, cluster, node, size) for node in cluster.node_ids]
    assert logs[0] == logs[1] == logs[2], "the replicas' logs differ"
    (folder / "log").write_bytes(b"".join(logs[0]))
    proofs = [f"--public-key={folder / 'public'}", f"--checkpoint={folder / 'checkpoint'}"]
    assert verify([str(folder / "log"), f"--key-file={folder / 'key'}", *proofs]) == 0
    for file in cluster.folder.rglob("*.log"):
        assert "audit batches are missing" not in file.read_text(errors="replace"), file
    return [json.loads(line) for line in logs[0]]


def _log_of(cluster: Cluster, node: str, size: int) -> list[bytes]:
    files = sorted((cluster.folder / node / "audit").glob("*.jsonl"))
    lines = b"".join(file.read_bytes() for file in files).splitlines(keepends=True)
    assert len(lines) >= size, f"{node} has {len(lines)} of {size} entries"
    return lines[:size]


def _require_tried_again(entries: list[dict[str, Any]], acknowledged: list[str]) -> None:
    """Two entries of one request are two attempts, by two processes: the first one's answer was lost."""
    of: dict[str, list[str]] = {each: [] for each in acknowledged}
    for entry in entries:
        if entry["request_id"] in of:
            of[entry["request_id"]].append(entry["producer"])
    same = {each: producers for each, producers in of.items() if len(producers) != len(set(producers))}
    assert same == {}
