"""A kv service over a fake store, and a caller of it."""

from __future__ import annotations

import time
from typing import Any, cast

from services.kv.repository import Repository
from services.kv.servicer import KVServicer
from services.kv.watching.watch_secrets import Watching
from strongbox.access.authenticated_records import seal_record
from strongbox.access.guard import Guard
from strongbox.access.token_format import digest
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.rpc.request_context import Inbound, bind
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from tests.support.access import FakeCluster
from tests.support.border import answered
from tests.support.keys import FakeKeyClient
from tests.support.pipeline import FakePipeline


class Kv(FakeCluster):
    """The service; every call is by `token`, the root token unless said."""

    def __init__(self) -> None:
        super().__init__()
        self.key_client = FakeKeyClient(self.keys)
        self.pipeline = FakePipeline(self.store)
        self.guard = Guard(self.key_client)
        self.servicer = KVServicer(
            cast("Any", self.pipeline),
            self.guard,
            self.key_client,
            Watching(cast("Any", self.pipeline), self.guard, cast("Any", None)),
        )
        self.requests = 0

    async def call(
        self, name: str, request: Any, *, token: str = "", key: str = "", request_id: str = ""
    ) -> Any:
        self.requests += 1
        bind(
            Inbound(
                token=token or self.root,
                request_id=request_id or f"request-{self.requests}",
                client="127.0.0.1",
                idempotency_key=key,
                deadline=time.monotonic() + 1,
            )
        )
        return await answered(self.servicer, name, request, self.key_client.require_unsealed_since)

    async def write(self, path: str = "a", value: str = "v", **options: Any) -> pb.WriteSecretResponse:
        wire = {k: options.pop(k) for k in ("cas", "ttl") if k in options}
        request = pb.WriteSecretRequest(path=path, value=value, **wire)
        return cast("pb.WriteSecretResponse", await self.call("WriteSecret", request, **options))

    async def read(
        self, path: str = "a", version: int | None = None, **options: Any
    ) -> pb.ReadSecretResponse:
        request = pb.ReadSecretRequest(path=path, version=version)
        return cast("pb.ReadSecretResponse", await self.call("ReadSecret", request, **options))

    async def change(self, what: str, *numbers: int, path: str = "a", **options: Any) -> Any:
        """`Delete`, `Undelete` or `Destroy` versions."""
        request = getattr(pb, f"{what}SecretVersionsRequest")(path=path, versions=numbers)
        return await self.call(f"{what}SecretVersions", request, **options)

    async def metadata(self, path: str = "a") -> pb.ReadSecretMetadataResponse:
        request = pb.ReadSecretMetadataRequest(path=path)
        return cast("pb.ReadSecretMetadataResponse", await self.call("ReadSecretMetadata", request))

    async def list(self, prefix: str = "", **fields: Any) -> pb.ListSecretsResponse:
        options = {k: fields.pop(k) for k in ("token",) if k in fields}
        request = pb.ListSecretsRequest(prefix=prefix, **fields)
        return cast("pb.ListSecretsResponse", await self.call("ListSecrets", request, **options))

    def head(self, path: str = "a") -> storage.SecretHead:
        found = Repository(self.guard.lookup).head(self.store.view(), path)
        return found if found is not None else storage.SecretHead()

    def put_head(self, path: str, head: storage.SecretHead) -> None:
        """As kv itself would put it."""
        key = keyspace.head(path)
        self.store.seed(key, seal_record(self.keys, key, head.SerializeToString()))

    def token_of(self, **rules: str) -> str:
        """A token with one policy: path pattern (`__` for `/`, `__ALL` for `/*`) = capabilities."""
        name = f"p{len(self.store.facts)}"
        plain = {path.replace("__ALL", "/*").replace("__", "/"): text for path, text in rules.items()}
        self.put_policy(name, plain)
        return self.add_token(policies=[name])

    def accessor_of(self, token: str) -> str:
        record = self.guard.lookup.token(self.store.view(), digest(token))
        assert record is not None
        return record.accessor
