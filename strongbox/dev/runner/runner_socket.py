"""How a running runner is asked for something: one JSON object each way over DIR/runner.sock.

The socket is reached through /proc/self/fd, because DIR may be longer than the 107 bytes of a socket's path.
Who may use it is whom DIR lets in.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
_NAME = "runner.sock"


class Busy(Exception):
    """Another runner has this folder."""


@contextmanager
def sole_runner(folder: Path) -> Iterator[None]:
    """Hold DIR/lock: two runners never share a folder. Raises Busy. The kernel frees it when we die."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"the cluster in {folder} is running already") from None
        yield
    finally:
        os.close(descriptor)


def ask(folder: Path, request: Answer, timeout: float = 120.0) -> Answer:
    """The runner's answer. Raises OSError when it does not answer."""
    with _path_of(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: Answer = json.loads(_line(connection) or b'{"error": "the runner ended"}')
        return answer


class Listener:
    """The runner's end."""

    def __init__(self, folder: Path) -> None:
        (folder / _NAME).unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        with _path_of(folder) as path:
            self._socket.bind(path)
        self._socket.listen(8)

    def serve(self, handle: Callable[[Answer], Answer], patience: float) -> None:
        """Answer one request, if one comes within `patience` seconds."""
        waiting = select.poll()  # not select(), which knows no file above 1023
        waiting.register(self._socket, select.POLLIN)
        if not waiting.poll(round(patience * 1000)):
            return
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(2.0)
            try:
                answer = handle(json.loads(_line(connection)))
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, ValueError):
                return  # who asked has gone, or asked nonsense

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@contextmanager
def _path_of(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        more = connection.recv(65536)
        if not more:
            break
        received += more
    return received
