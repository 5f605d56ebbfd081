"""Whatever one caller with a valid but narrow token does, others are served: at which latency is reported.

Honest clients write, read and list small secrets through every gateway, first alone, then while one caller
attacks (tests.robustness.attacker, from another address). A request of theirs that fails is asked once more,
as any client does; when that fails as well it is a violation. Times are told, not judged: two cores serve the
attacker, the attacked and the honest.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.robustness import attacker
from tests.robustness.door import Rest
from tests.robustness.stage import NODES, Stage
from tests.support.clients import Patience, RestClient
from tests.support.cluster import ROOT
from tests.support.etcd import dying_with_parent

ALONE = "nobody attacks"
SECONDS, SOAK_SECONDS = 4.0, 20.0  # of each attack
_PAUSE = 0.03  # seconds between two requests of an honest client
_OVER_AFTER = 30.0  # seconds from an attack until everything serves again
_AGAIN = 0.5  # seconds until what failed is asked once more
_LEAST = 20  # requests of the honest, and of the attacker, in each window
_ATTACKER = "attacker"
_HONEST = "robust/honest"


@dataclass
class Window:
    """What honest clients saw while something went on; safe to be used by many threads."""

    kind: str
    took: list[float] = field(default_factory=list)
    again: int = 0
    failures: list[str] = field(default_factory=list)
    attacks: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, took: float, tries: int, failure: str) -> None:
        with self._lock:
            self.took.append(took)
            self.again += tries - 1
            if failure:
                self.failures.append(failure)

    def quantile(self, part: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.took)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Others:
    """All windows, one after the other."""

    def __init__(self, stage: Stage, token: str, seconds: float) -> None:
        self._stage, self._token, self._seconds = stage, token, seconds
        self.windows: list[Window] = []

    def play(self) -> Iterator[str]:
        """Each attack once; violations."""
        source = self._stage.lab.guest()
        token = self._prepare()
        for kind in (ALONE, *attacker.KINDS):
            window = Window(kind)
            self.windows.append(window)
            with _Honest(self._stage, self._token, window):
                if kind == ALONE:
                    time.sleep(self._seconds)
                else:
                    window.attacks = self._attack(kind, source, token)
            yield from violations(window)
            try:
                self._stage.wait_recovered(_OVER_AFTER)
            except TimeoutError as late:
                yield f"others: after one caller sent {kind}: {late}"

    def lines(self) -> Iterator[str]:
        """Each window's figures."""
        yield "others, while one caller sends      requests  again  p50, ms  p99, ms  his answers"
        for one in self.windows:
            figures = f"{len(one.took):>9}{one.again:>7}{one.quantile(0.5):>9.0f}{one.quantile(0.99):>9.0f}"
            yield f"{one.kind:<34}{figures}  {one.attacks or ''}"

    def _attack(self, kind: str, source: str, token: str) -> dict[str, int]:
        gateways = [self._stage.gateway(number) for number in NODES]
        named = [kind, str(self._seconds), source, *gateways]
        done = subprocess.run(
            [*dying_with_parent(), sys.executable, "-m", "tests.robustness.attacker", *named],
            input=token + "\n", capture_output=True, text=True, timeout=self._seconds + 30,
            cwd=ROOT, check=True,
        )  # fmt: skip
        found: dict[str, int] = json.loads(done.stdout)
        return found

    def _prepare(self) -> str:
        """The attacker's token, and his secrets."""
        with self._stage.cluster.rest(self._stage.cluster.root_token, NODES[0], Patience()) as root:
            rules = [
                {"path": "secret/attack/*", "capabilities": ["read", "write", "list", "metadata"]},
                {"path": "auth/tokens", "capabilities": ["write"]},
            ]
            root.call("PUT", f"/v1/policies/{_ATTACKER}", {"rules": rules})
            token = str(root.call("POST", "/v1/tokens", {"policies": [_ATTACKER], "ttl": "1h"})["token"])
        with self._stage.cluster.rest(token, NODES[0], Patience()) as rest:
            _fill(rest)
        return token


class _Honest:
    """A client at each gateway, while the context lasts."""

    def __init__(self, stage: Stage, token: str, window: Window) -> None:
        self._gateways = [stage.gateway(number) for number in NODES]
        self._token, self._window, self._stop = token, window, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in NODES]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, number: int) -> None:
        rest, own = Rest(self._gateways[number]), f"{_HONEST}/{number}"
        try:
            while not self._stop.is_set():
                for method, path, body in (
                    ("PUT", f"/v1/secrets/{own}", {"value": secrets.token_hex(8)}),
                    ("GET", f"/v1/secrets/{own}", None),
                    ("GET", f"/v1/secrets-list/{_HONEST}", None),
                ):
                    self._ask(rest, method, path, body)
                    time.sleep(_PAUSE)
        finally:
            rest.close()

    def _ask(self, rest: Rest, method: str, path: str, body: Any) -> None:
        for tries in (1, 2):
            begun = time.monotonic()
            answer = rest.call(self._token, method, path, body, key=secrets.token_hex(8))
            if answer.status == 200:
                return self._window.saw(time.monotonic() - begun, tries, "")
            time.sleep(_AGAIN)
        failure = f"{method} {path}: {answer.status} {answer.reason}"
        return self._window.saw(time.monotonic() - begun, 2, failure)


def _fill(rest: RestClient) -> None:
    value = "x" * attacker.SIZE
    for path in range(attacker.PATHS):
        for _ in range(attacker.VERSIONS):
            rest.call("PUT", f"/v1/secrets/{attacker.LARGE}/{path}", {"value": value})


def violations(window: Window) -> Iterator[str]:
    """Who was not served; a window in which little was asked proves nothing."""
    for failure in window.failures[:3]:
        yield f"others: while one caller sends {window.kind}, {failure} ({len(window.failures)} in all)"
    if len(window.took) < _LEAST:
        yield f"enough: only {len(window.took)} honest requests while one caller sends {window.kind}"
    if window.kind != ALONE and sum(window.attacks.values()) < _LEAST // 4:
        yield f"enough: the attacker did little: {window.kind}: {window.attacks}"
