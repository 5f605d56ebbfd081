"""What the fake knows, and what every call to it goes through."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from strongbox.audit_log.checkpoint import Checkpoint, origin_of
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.auth.v1 import auth_service_pb2 as auth_pb
from strongbox.crypto.ed25519 import SigningKey
from strongbox.errors import Sealed, StrongBoxError, Unauthenticated
from strongbox.kv.v1 import kv_service_pb2 as kv_pb
from strongbox.rpc.error_mapping import to_answer

TOKEN = "sbt_good"
SHARES = ("c2hhcmUtMQ", "c2hhcmUtMg", "c2hhcmUtMw")
PASSWORD = "correct horse battery staple"
REQUEST_ID = "7d9f0c1e-0000-4000-8000-000000000001"
CREATED = Timestamp(seconds=1_700_000_000)
KEY_FILE = "1:" + "ab" * 32 + "\n"


class FakeLog:
    """A Merkle tree over numbers, and a key to sign it with."""

    def __init__(self, size: int = 0) -> None:
        self.key = SigningKey(bytes(32))
        self.frontier, self.row = Frontier(), list[bytes]()
        self.grow(size)

    def grow(self, size: int) -> None:
        """Until it has so many leaves."""
        while self.frontier.size < size:
            self.row += self.frontier.add(leaf_hash(b"%d" % self.frontier.size))

    def checkpoint(self) -> Checkpoint:
        """What it says of itself."""
        return Checkpoint(origin_of("fake"), self.frontier.size, self.frontier.root())


@dataclass
class World:
    """What the fake knows, and what was asked of it."""

    sealed: bool = False
    etcd_is_away: bool = False  # health says what it knows without it
    progress: set[str] = field(default_factory=set)
    secrets: dict[str, list[kv_pb.WriteSecretRequest]] = field(default_factory=dict)
    policies: dict[str, list[auth_pb.PolicyRule]] = field(default_factory=dict)
    accessors: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    entries: int = 0
    log: FakeLog = field(default_factory=FakeLog)
    failure: StrongBoxError | None = None
    delay: float = 0.0
    page: int = 2
    asked: list[tuple[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    deadlines: list[float] = field(default_factory=list)
    target: str = ""

    def last(self) -> Any:
        """The newest request."""
        return self.asked[-1][1]

    def admit(self, name: str, request: Any, context: Any, *, open_to_all: bool = False) -> None:
        """What every call goes through."""
        self.asked.append((name, request))
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.deadlines.append(float(context.time_remaining() or 0.0))
        time.sleep(self.delay)
        if self.failure is not None:
            refuse(context, self.failure)
        if open_to_all:
            return
        if self.sealed:
            refuse(context, Sealed())
        if self.metadata.get("authorization") != f"Bearer {TOKEN}":
            refuse(context, Unauthenticated())


def refuse(context: Any, error: StrongBoxError) -> None:
    """End the call as the real border does."""
    answer = to_answer(error, REQUEST_ID)
    context.set_trailing_metadata(answer.trailing)
    context.abort(answer.code, answer.message)


def page_of(names: list[str], token: str, size: int) -> tuple[list[str], str]:
    """A page and the next one's token."""
    start = int(token or 0)
    more = start + size < len(names)
    return names[start : start + size], str(start + size) if more else ""
