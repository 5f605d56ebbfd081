"""Clients that meet on a few secrets: each operation of the surface, half of the writes with `cas`."""

from __future__ import annotations

import itertools
import secrets
import threading
from random import Random
from typing import Any

from tests.robustness.door import Answer
from tests.robustness.history import History
from tests.robustness.traffic.asking import CANARY, Asked, Target, Worker, field_of

HOT = 3  # secrets at a time
LIFE = 60  # operations on one of them
_KINDS = ("write", "cas", "read", "old", "delete", "undelete", "destroy", "list", "metadata")
_WEIGHTS = (20, 15, 34, 10, 4, 4, 4, 4, 5)
_RPCS = {"delete": "Delete", "undelete": "Undelete", "destroy": "Destroy"}


class Hot:
    """The secrets that are hot now; `all` are those that ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._left: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self.all: list[str] = []

    def take(self, own: Random) -> tuple[str, int]:
        """A hot secret's path, and the newest version that anybody was told of."""
        with self._lock:
            while len(self._left) < HOT:
                path = f"robust/d{next(self._numbers)}/it"
                self._left[path], self._versions[path] = LIFE, 0
                self.all.append(path)
            path = own.choice(list(self._left))
            self._left[path] -= 1
            if not self._left[path]:
                del self._left[path]
            return path, self._versions[path]

    def add(self, path: str) -> str:
        """A secret that is not hot; returns its path."""
        with self._lock:
            self._versions[path] = 0
            self.all.append(path)
            return path

    def saw(self, path: str, version: int) -> None:
        with self._lock:
            self._versions[path] = max(version, self._versions[path])


class SecretClient(Worker):
    """`native`: speaks gRPC."""

    def __init__(self, target: Target, history: History, hot: Hot, *, native: bool) -> None:
        super().__init__(target, history)
        self._hot, self._native = hot, native

    def turn(self) -> None:
        """One operation on a hot secret."""
        path, known = self._hot.take(self.random)
        kind = self.random.choices(_KINDS, _WEIGHTS)[0]
        if kind in ("write", "cas"):
            self.write(path, known if kind == "cas" else None)
        elif kind in ("read", "old"):
            self.read(path, self.random.randint(1, max(1, known)) if kind == "old" else None)
        elif kind == "list":
            self.list(path)
        elif kind == "metadata":
            self.metadata(path)
        else:
            self.change(kind, path, self.random.randint(1, max(1, known)))

    def write(self, path: str, cas: int | None) -> None:
        value = CANARY + secrets.token_hex(6)
        asked = Asked(
            f"secret:{path}", "write" if cas is None else "cas", (value, cas),
            ("WriteSecret", f"secret/{path}"), changes=True,
            read_output=lambda answer: (int(field_of(answer, "version")),),
        )  # fmt: skip
        fields = {"value": value} if cas is None else {"value": value, "cas": cas}
        if self._native:
            answer = self.native(asked, self.target.client, "WriteSecret", path=path, **fields)
        else:
            answer = self.rest(asked, self.target.client, "PUT", f"/v1/secrets/{path}", fields)
        if answer.status == 200:
            self._hot.saw(path, int(field_of(answer, "version")))

    def read(self, path: str, number: int | None, node: int = -1) -> Answer:
        asked = Asked(
            f"secret:{path}", "read", (number,), ("ReadSecret", f"secret/{path}"),
            read_output=lambda answer: (int(field_of(answer, "version")), str(field_of(answer, "value"))),
        )  # fmt: skip
        if self._native:
            fields = {} if number is None else {"version": number}
            return self.native(asked, self.target.client, "ReadSecret", node=node, path=path, **fields)
        query = "" if number is None else f"?version={number}"
        return self.rest(asked, self.target.client, "GET", f"/v1/secrets/{path}{query}", node=node)

    def metadata(self, path: str, node: int = -1) -> Answer:
        asked = Asked(
            f"secret:{path}", "metadata", (), ("ReadSecretMetadata", f"secret/{path}"), read_output=_states
        )
        return self.rest(asked, self.target.client, "GET", f"/v1/secrets-metadata/{path}", node=node)

    def list(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        asked = Asked(
            f"secret:{path}", "list", (), ("ListSecrets", f"secret/{directory}/"),
            read_output=lambda answer: (name in answer.body["names"],),
        )  # fmt: skip
        self.rest(asked, self.target.client, "GET", f"/v1/secrets-list/{directory}")

    def change(self, kind: str, path: str, number: int) -> None:
        rpc = _RPCS[kind] + "SecretVersions"
        asked = Asked(f"secret:{path}", kind, (number,), (rpc, f"secret/{path}"), changes=True)
        if self._native:
            self.native(asked, self.target.client, rpc, path=path, versions=[number])
        elif kind == "delete":
            self.rest(asked, self.target.client, "DELETE", f"/v1/secrets/{path}?versions={number}")
        else:
            body = {"versions": [number]}
            self.rest(asked, self.target.client, "POST", f"/v1/secrets-{kind}/{path}", body)


def _states(answer: Answer) -> tuple[Any, ...]:
    """The newest version's number, and how each is that is kept."""
    versions = answer.body["versions"]
    return int(answer.body["current_version"]), tuple(
        "destroyed" if one.get("destroyed_at") else "deleted" if one.get("deleted_at") else "live"
        for one in versions
    )
