"""Writers of one path with different values, who leave or are refused: what does each told version hold?

Rivals write a path through one gateway at a time, so that they meet in one replica. Some name a version
that cannot be, some do not wait for their answers. Who is told a version reads it by its number at once,
through any gateway; at the end all are read once more, from every node (`judge`).
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Iterator

from tests.robustness.door import Rest
from tests.robustness.history import History
from tests.robustness.traffic.asking import CANARY, Asked, Target, Worker, field_of

RIVALS = 5
LIFE = 10  # requests to one path: as many versions are kept
_WRONG = 0.2  # of the writes name a version that cannot be
_LEAVING = 0.5
_PAUSE = 0.05  # seconds
_AT_ONCE = 200  # versions read by one request


class Told:
    """What each acknowledged version has to hold; safe to be used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names = itertools.count(1)
        self._left = 0
        self._path, self._node = "", 0
        self.values: dict[tuple[str, int], set[str]] = {}
        self.violations: list[str] = []

    def meet(self, nodes: int) -> tuple[str, int]:
        """The path that is fought for now, and the node through which."""
        with self._lock:
            if not self._left:
                number = next(self._names)
                self._path, self._node, self._left = f"robust/rival{number}/it", number % nodes, LIFE
            self._left -= 1
            return self._path, self._node

    def acknowledged(self, path: str, version: int, value: str) -> None:
        """A writer was told so."""
        with self._lock:
            told = self.values.setdefault((path, version), set())
            told.add(value)
            if len(told) > 1:
                self.violations.append(f"told: version {version} of {path} was told to {len(told)} writers")

    def wrong(self, path: str, version: int, value: str, where: str) -> list[str]:
        """What is wrong with what a reader found there: nothing, or a sentence."""
        if value in self.values[path, version]:
            return []
        held = "another's value" if value.startswith(CANARY) else "something else"
        return [f"told: version {version} of {path} holds {held}, not what its writer wrote (read {where})"]


class Rival(Worker):
    """One of them; `native`: speaks gRPC, and leaves by its deadline."""

    def __init__(self, target: Target, history: History, told: Told, *, native: bool) -> None:
        super().__init__(target, history)
        self._told, self._native = told, native

    def turn(self) -> None:
        """Write, and read what was acknowledged."""
        path, node = self._told.meet(len(self.target.gateways))
        value = CANARY + secrets.token_hex(6)
        self.leaving = _LEAVING
        version = self._write(path, value, node)
        self.leaving = 0.0
        if version:
            self._told.acknowledged(path, version, value)
            self._read(path, version)
        time.sleep(_PAUSE)

    def _write(self, path: str, value: str, node: int) -> int:
        fields: dict[str, object] = {"value": value}
        if self.random.random() < _WRONG:
            fields["cas"] = 1_000_000
        asked = Asked("made", "rival", (path,), ("WriteSecret", f"secret/{path}"), changes=True)
        if self._native:
            answer = self.native(asked, self.target.client, "WriteSecret", node=node, path=path, **fields)
        else:
            answer = self.rest(asked, self.target.client, "PUT", f"/v1/secrets/{path}", fields, node)
        return int(field_of(answer, "version")) if answer.status == 200 else 0

    def _read(self, path: str, version: int) -> None:
        asked = Asked("made", "own version", (version,), ("ReadSecret", f"secret/{path}"))
        answer = self.rest(asked, self.target.client, "GET", f"/v1/secrets/{path}?version={version}")
        if answer.status == 200:
            self._told.violations += self._told.wrong(path, version, str(answer.body["value"]), "at once")


def clients(target: Target, history: History, told: Told) -> list[Worker]:
    """All of them."""
    return [Rival(target, history, told, native=number % 2 == 1) for number in range(RIVALS)]


def judge(told: Told, gateway: str, token: str, where: str) -> Iterator[str]:
    """Read every version that anybody was told of through one gateway; violations."""
    rest = Rest(gateway)
    known = list(told.values)
    try:
        for start in range(0, len(known), _AT_ONCE):
            some = known[start : start + _AT_ONCE]
            wanted = [{"path": path, "version": version} for path, version in some]
            answer = rest.call(token, "POST", "/v1/secrets-batch", {"requests": wanted})
            if answer.status != 200:
                yield f"told: nothing can be read {where}: {answer.status} {answer.reason}"
                return
            for (path, version), result in zip(some, answer.body["results"], strict=True):
                if result.get("secret"):
                    yield from told.wrong(path, version, str(result["secret"]["value"]), where)
                else:
                    yield f"told: version {version} of {path} is not there {where}: {result.get('error')}"
    finally:
        rest.close()
