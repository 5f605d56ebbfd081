"""A name server on 127.0.0.1 that says what a test wants it to say, with a TTL as clusters give it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_A, _IN = 1, 1
_ANSWER, _AUTHORITATIVE, _NO_SUCH_NAME = 0x8000, 0x0400, 3


class NameServer:
    """Answers over UDP (RFC 1035): `hosts` are the IPv4 addresses of each name, and may change meanwhile."""

    def __init__(self, ttl: int) -> None:
        self.ttl = ttl  # seconds
        self.hosts: dict[str, list[str]] = {}
        self.asked: dict[str, list[float]] = {}  # monotonic moments, by name; for addresses of version 4
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):  # it is not connected, and wakes up all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, source = self._socket.recvfrom(4096)
                if not query:
                    return
                self._socket.sendto(self._answer(query), source)
            except OSError:
                return

    def _answer(self, query: bytes) -> bytes:
        name, end = _name(query)
        (kind,) = struct.unpack_from("!H", query, end)
        known = self.hosts.get(name)
        found = known if known and kind == _A else []
        if kind == _A:
            self.asked.setdefault(name, []).append(time.monotonic())
        flags = _ANSWER | _AUTHORITATIVE | (0 if known else _NO_SUCH_NAME)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        records = [
            # The name is the question's, at offset 12.
            struct.pack("!HHHIH", 0xC00C, _A, _IN, self.ttl, 4) + socket.inet_aton(host)
            for host in found
        ]
        return head + query[12 : end + 4] + b"".join(records)


def _name(query: bytes) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii").lower())
        at += 1 + query[at]
    return ".".join(labels), at + 1


@contextmanager
def name_server(ttl: int) -> Iterator[NameServer]:
    """One that is there for a while."""
    server = NameServer(ttl)
    try:
        yield server
    finally:
        server.close()
