"""An auth service over a fake store, and callers of it."""

from __future__ import annotations

import time
from typing import Any, cast

from services.auth.logins.password_hashing import Passwords
from services.auth.logins.reviewer_token import OwnReviewer
from services.auth.peer_servicer import AuthPeerServicer
from services.auth.quotas import Quotas
from services.auth.repository import Repository
from services.auth.servicer import AuthServicer
from services.auth.tokens import Tokens
from strongbox.access.guard import Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.rpc.request_context import Inbound, bind
from tests.support.access import FakeCluster
from tests.support.border import answered
from tests.support.keys import FakeKeyClient
from tests.support.pipeline import FakePipeline

PASSWORD = "correct horse battery staple"
CLIENT = "192.0.2.7"


class CountingPasswords(Passwords):
    """Counts what was hashed and verified."""

    def __init__(self) -> None:
        super().__init__(workers=1)
        self.hashed = self.verified = 0

    async def hash(self, password: str, deadline: float) -> str:
        self.hashed += 1
        return await super().hash(password, deadline)

    async def verify(self, stored: str | None, password: str, deadline: float) -> bool:
        self.verified += 1
        return await super().verify(stored, password, deadline)


class AuthService(FakeCluster):
    """The service; calls are by `token`, the root token unless said."""

    def __init__(self, limits: Quotas | None = None, own: OwnReviewer | None = None) -> None:
        super().__init__()
        self.key_client = FakeKeyClient(self.keys)
        self.pipeline = FakePipeline(self.store)
        self.guard = Guard(self.key_client)
        self.passwords = CountingPasswords()
        self.strangers: list[str] = []
        pipeline = cast("Any", self.pipeline)
        self.servicer = AuthServicer(
            pipeline, self.guard, self.key_client, self.strangers.append, self.passwords, limits, own
        )
        self.peers = AuthPeerServicer(pipeline, Tokens(self.guard, Repository(self.guard.lookup)))
        self.put_policy("app", {"secret/app/*": "read write"})

    async def call(
        self, rpc: str, /, *, token: str | None = None, client: str = CLIENT, use: int = 0, **fields: Any
    ) -> Any:
        bind(
            Inbound(
                token=self.root if token is None else token,
                request_id="request",
                client=client,
                idempotency_key="",
                deadline=time.monotonic() + 10,
                use=use,
            )
        )
        request = getattr(pb, f"{rpc}Request")(**fields)
        return await answered(self.servicer, rpc, request, self.key_client.require_unsealed_since)

    async def user(self, name: str = "alice", password: str = PASSWORD, **fields: Any) -> None:
        await self.call("WriteUser", name=name, password=password, **{"policies": ["app"], **fields})

    async def login(self, name: str = "alice", password: str = PASSWORD, **options: Any) -> Any:
        return await self.call("LoginUser", token="", name=name, password=password, **options)

    def recorded(self, op: str) -> list[tuple[str, str, str]]:
        """Path, outcome and reason of each audit record of an RPC."""
        return [(one.path, one.outcome, one.reason) for one in self.pipeline.audited if one.op == op]
