"""One caller with a valid but narrow token who asks for as much as he can, in a process of his own.

Run as `python -m tests.robustness.attacker KIND SECONDS ADDRESS GATEWAY…`, from that address; the token comes
by standard input. Prints how many answers of each status there were, as JSON. Kinds are the names in `KINDS`.
"""

from __future__ import annotations

import http.client
import json
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

LARGE = "attack/large"  # below it: PATHS secrets of VERSIONS versions, SIZE bytes each
PATHS, VERSIONS, SIZE = 32, 8, 96 << 10
_CONNECTIONS = 8
_MANY = 48  # connections of floods that cost the attacker nothing
_STREAMS = 40  # watches of each connection's token
_ANSWERS_WITHIN = 8.0


class Attack:
    """Some threads that ask until the time is over."""

    def __init__(self, source: str, gateways: list[str], token: str, until: float) -> None:
        self._source, self._gateways, self._token, self._until = source, gateways, token, until
        self.counts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def run(self, turn: Callable[[Attack, Door], None], connections: int) -> None:
        """So many at once; `turn` is one step of each."""
        threads = [
            threading.Thread(target=self._work, args=(turn, number), daemon=True)
            for number in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self._until - time.monotonic()) + 1.0)

    def _work(self, turn: Callable[[Attack, Door], None], number: int) -> None:
        door = Door(self._gateways[number % len(self._gateways)], self._source, self._token, self._count)
        while time.monotonic() < self._until:
            turn(self, door)

    def _count(self, status: int) -> None:
        with self._lock:
            self.counts[status] += 1


class Door:
    """A connection, opened anew when it breaks."""

    def __init__(self, gateway: str, source: str, token: str, count: Callable[[int], None]) -> None:
        parts = urlsplit(gateway)
        self._address, self._source = (str(parts.hostname), int(parts.port or 80)), (source, 0)
        self.token, self._count = token, count
        self._connection: http.client.HTTPConnection | None = None
        self.streams: list[http.client.HTTPConnection] = []

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> bytes:
        """One request; what it is answered with."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._send(self._connection, method, path, body, self.token if token is None else token)
            answer = self._connection.getresponse()
            content = answer.read()
            self._count(answer.status)
            return content
        except (OSError, http.client.HTTPException):
            self._connection = None
            self._count(0)
            time.sleep(0.05)
            return b""

    def stream(self, path: str, token: str) -> None:
        """Begin one, and leave it open: the first word comes with the first event."""
        try:
            connection = self._connect()
            self._send(connection, "GET", path, None, token)
            self.streams.append(connection)
        except (OSError, http.client.HTTPException):
            self._count(0)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            *self._address, timeout=_ANSWERS_WITHIN, source_address=self._source
        )

    @staticmethod
    def _send(connection: http.client.HTTPConnection, method: str, path: str, body: Any, token: str) -> None:
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        connection.request(method, path, None if body is None else json.dumps(body), headers)


def _batches(_: Attack, door: Door) -> None:
    wanted = [
        {"path": f"{LARGE}/{path}", "version": version + 1}
        for path in range(PATHS)
        for version in range(VERSIONS)
    ]
    door.ask("POST", "/v1/secrets-batch", {"requests": wanted})


def _lists(_: Attack, door: Door) -> None:
    door.ask("GET", "/v1/secrets-list/attack?recursive=true")


def _junk_lists(_: Attack, door: Door) -> None:
    door.ask("GET", "/v1/secrets-list/robust?recursive=true", token="sb." + secrets.token_urlsafe(32))


def _watches(_: Attack, door: Door) -> None:
    """Watches of his own, of his children, and a writer who has something told to all of them."""
    if len(door.streams) < _STREAMS:
        made = door.ask("POST", "/v1/tokens", {"policies": ["attacker"], "ttl": "10m"})
        child = json.loads(made or b"{}").get("token", door.token)
        for _ in range(_STREAMS // 2):
            door.stream("/v1/secrets-watch/attack", child)
    door.ask("PUT", "/v1/secrets/attack/watched", {"value": secrets.token_hex(8)})


def _tokens(_: Attack, door: Door) -> None:
    wide = "\N{GRINNING FACE}" * 128
    door.ask("POST", "/v1/tokens", {"policies": ["attacker"], "ttl": "10m", "display_name": wide})


def _metadata(_: Attack, door: Door) -> None:
    door.ask("PATCH", f"/v1/secrets-metadata/{LARGE}/0", {"custom": {"k": secrets.token_hex(64)}})


def _junk(_: Attack, door: Door) -> None:
    door.ask("GET", "/v1/secrets/robust/none", token="sb." + secrets.token_urlsafe(32))


def _health(_: Attack, door: Door) -> None:
    door.ask("GET", "/v1/sys/health", token="")
    door.ask("GET", "/v1/sys/ready", token="")


KINDS: dict[str, tuple[Callable[[Attack, Door], None], int]] = {
    "batches of large secrets": (_batches, 4),
    "lists": (_lists, _CONNECTIONS),
    "lists by junk tokens": (_junk_lists, _MANY),
    "watches": (_watches, _CONNECTIONS),
    "tokens": (_tokens, _CONNECTIONS),
    "metadata of a large secret": (_metadata, _CONNECTIONS),
    "junk tokens": (_junk, _MANY),
    "health": (_health, _MANY),
}


def main(kind: str, seconds: float, source: str, gateways: list[str]) -> None:
    """One attack."""
    attack = Attack(source, gateways, sys.stdin.readline().strip(), time.monotonic() + seconds)
    attack.run(*KINDS[kind])
    print(json.dumps(attack.counts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:])
