"""A secret that rests while it is read through every node: nothing hinders a read that comes late."""

from __future__ import annotations

import itertools
import time

from tests.robustness.history import History
from tests.robustness.traffic.asking import Target
from tests.robustness.traffic.hot_secrets import Hot, SecretClient

_RESTS = 3.0  # seconds
_names = itertools.count(1)


class Larder:
    """The secret that rests now."""

    current = ""


class Storer(SecretClient):
    """Writes one secret after the other, each once."""

    def __init__(self, target: Target, history: History, hot: Hot, larder: Larder) -> None:
        super().__init__(target, history, hot, native=False)
        self._larder = larder

    def turn(self) -> None:
        path = self._hot.add(f"robust/cold{next(_names)}/it")
        self.write(path, None)
        self._larder.current = path
        time.sleep(_RESTS)


class ColdReader(SecretClient):
    """Reads what rests, through one node."""

    def __init__(self, target: Target, history: History, hot: Hot, larder: Larder, node: int) -> None:
        super().__init__(target, history, hot, native=False)
        self._larder, self._node = larder, node

    def turn(self) -> None:
        if self._larder.current:
            self.read(self._larder.current, None, self._node)
