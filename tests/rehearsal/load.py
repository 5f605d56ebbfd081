"""Clients that write and read through the gateways' Service all the while, in a process of their own.

    python -m tests.rehearsal.load ADDRESS NAME CA TOKEN_FILE RECORDS     until SIGTERM

Each client has a path of its own and raises its version by one with `cas`, so a write that is lost or carried
out twice shows. As docs/failover.md tells clients to, a request whose connection broke is sent again with the
same idempotency key; every other answer than 200 stands in RECORDS as it came, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

_CLIENTS = 4
_PAUSE = 0.05  # seconds between a client's requests: some forty a second in all
_TIMEOUT = 10.0
_KEPT = 25  # requests on one connection, then another, which may be to another gateway


class Link(http.client.HTTPConnection):
    """HTTP over TLS to an address, with the certificate checked against another name."""

    def __init__(self, address: str, name: str, context: ssl.SSLContext) -> None:
        super().__init__(address, 443, timeout=_TIMEOUT)
        self._name, self._context = name, context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self._name)


class Client:
    """One of the clients."""

    def __init__(self, number: int, make: Any, token: str, records: IO[str]) -> None:
        self._path = f"/v1/secrets/load/{secrets.token_hex(4)}/{number}"
        self._make, self._token, self._records = make, token, records
        self._link: Link | None = None
        self._sent = 0
        self.version = 0

    def work(self, ended: threading.Event) -> None:
        while not ended.is_set():
            version = self.version + 1
            body = {"value": f"version {version}", "cas": self.version}
            if self._ask("PUT", body) is not None:
                self.version = version
            answer = self._ask("GET") if self.version else None
            # What failed may have been carried out: then the reading says how it is.
            if answer is not None and int(answer["version"]) != self.version:
                stale = int(answer["version"]) < self.version
                self._note(what="stale" if stale else "carried out", status=200)
                self.version = int(answer["version"])
            time.sleep(_PAUSE)

    def _ask(self, method: str, body: Any = None) -> dict[str, Any] | None:
        """The answer of a 200, None for all else, which is noted."""
        key, begun, again = secrets.token_hex(8), time.time(), 0
        while True:
            try:
                status, text = self._send(method, body, key)
                break
            except (OSError, http.client.HTTPException) as error:
                self._close()
                again += 1
                if time.time() - begun > _TIMEOUT:
                    self._note(what=method, status=0, why=f"{type(error).__name__}: {error}", again=again)
                    return None
                time.sleep(0.05)
        took = round(time.time() - begun, 3)
        why = "" if status == 200 else text[:300]
        self._note(what=method, status=status, took=took, again=again, why=why)
        return dict(json.loads(text)) if status == 200 else None

    def _send(self, method: str, body: Any, key: str) -> tuple[int, str]:
        if self._link is None or self._sent >= _KEPT:
            self._close()
            self._link, self._sent = self._make(), 0
        self._sent += 1
        headers = {"authorization": f"Bearer {self._token}", "idempotency-key": key}
        if body is not None:
            headers["content-type"] = "application/json"
        self._link.request(method, self._path, None if body is None else json.dumps(body), headers)
        answer = self._link.getresponse()
        return answer.status, answer.read().decode()

    def _close(self) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.close()
        self._link = None

    def _note(self, **told: Any) -> None:
        self._records.write(json.dumps({"at": round(time.time(), 3), **told}) + "\n")


def main(words: list[str]) -> int:
    """Exit 0 when told to end."""
    address, name, authority, token, file = words
    context = ssl.create_default_context(cafile=authority)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with Path(file).open("w", encoding="utf-8", buffering=1) as records:
        known = Path(token).read_text(encoding="ascii").strip()
        clients = [
            Client(number, lambda: Link(address, name, context), known, records) for number in range(_CLIENTS)
        ]
        threads = [threading.Thread(target=one.work, args=(ended,)) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
