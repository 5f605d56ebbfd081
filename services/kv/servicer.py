"""KVService on the wire: each handler validates, decides through the guard, and replies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc.aio

from services.kv import messages
from services.kv.batch_read import Batch
from services.kv.data_keys import DataKeys, Keys, Stale
from services.kv.idempotency import Asked
from services.kv.list_secrets import Listing
from services.kv.read_secret import Reading
from services.kv.secrets import Done, Secrets, Wanted
from services.kv.watching.changes import revision_of
from services.kv.watching.watch_secrets import Watching
from strongbox.access.guard import Caller, Guard
from strongbox.audit_outbox.outbox import draft_of
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.kv.v1 import kv_service_pb2_grpc as rpc
from strongbox.paths import DirectoryPath, SecretPath
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.store import paging
from strongbox.store.decisions.pipeline import Outcome, Pipeline, Work
from strongbox.store.decisions.view import View

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
STALE_PAUSE = 0.02  # seconds before another data key is taken
COPIES = 4  # of a value in memory while it is written: in the request, plain, sealed, in the record
PAGE_SECONDS = 0.5  # after which a page is returned as it is
WALKS = 2  # reads of listings that one replica has in etcd at once


class KVServicer(rpc.KVServiceServicer):
    """Secrets over the pipeline; data keys come from and go to the seal service."""

    def __init__(self, pipeline: Pipeline, guard: Guard, keys: Keys, watching: Watching) -> None:
        self._pipeline, self._guard, self._watching = pipeline, guard, watching
        self._secrets, self._data_keys = Secrets(guard.lookup), DataKeys(keys)
        self._reading = Reading(pipeline, guard, self._secrets, keys)
        self._batch = Batch(guard, self._secrets, self._reading)
        # For each read every member of etcd walks all keys below a directory, in the transaction: few at
        # once.
        self._walking = asyncio.Semaphore(WALKS)

    async def WriteSecret(self, request: pb.WriteSecretRequest, context: Context) -> pb.WriteSecretResponse:
        """Make a new version, sealed under a data key of its own."""
        path, wanted = SecretPath.parse(request.path), messages.wanted_of(request)
        inbound = inbound_of(context)
        asked = Asked("WriteSecret", request, inbound)
        while True:
            try:
                done = await self._write(inbound, path, wanted, asked)
                break
            except Stale:  # a new key term came into use meanwhile
                await asyncio.sleep(STALE_PAUSE)
        return pb.WriteSecretResponse(
            path=path.text,
            version=done.value.versions[0],
            created_at=messages.moment(done.value.at_ms),
            revision=_revision(done),
        )

    async def _write(self, inbound: Inbound, path: SecretPath, wanted: Wanted, asked: Asked) -> Outcome[Done]:
        sealing = await self._data_keys.take(inbound.deadline, wanted.plaintext)

        def decide(view: View, caller: Caller) -> Done:
            return self._secrets.write(view, caller, path, wanted, sealing, asked)

        try:
            weight = COPIES * len(wanted.plaintext)
            return await self._act(inbound, "WriteSecret", "write", path.policy_path, decide, weight)
        finally:
            self._data_keys.give_back(sealing)

    async def ReadSecret(self, request: pb.ReadSecretRequest, context: Context) -> pb.ReadSecretResponse:
        """One version's value; its audit record is durable before the value leaves."""
        path, number = SecretPath.parse(request.path), messages.version_of(request)
        read = await self._reading.take(inbound_of(context), "ReadSecret", path, number)
        return messages.secret_to_proto(read.taken, read.revision)

    async def BatchReadSecrets(
        self, request: pb.BatchReadSecretsRequest, context: Context
    ) -> pb.BatchReadSecretsResponse:
        """Many secrets, each guarded and audited by itself, as they stood at one revision."""
        inbound = inbound_of(context)
        read = await self._batch.read(inbound, messages.items_of(request))
        told = [messages.result_to_proto(one, read.revision, inbound) for one in read.results]
        return pb.BatchReadSecretsResponse(revision=str(read.revision), results=told)

    async def WatchSecrets(
        self, request: pb.WatchSecretsRequest, context: Context
    ) -> AsyncIterator[pb.WatchSecretsResponse]:
        """Changes below a directory, until the client leaves or may no longer watch."""
        directory, first = DirectoryPath.parse(request.prefix), revision_of(request.from_revision)
        async with aclosing(self._watching.changes(inbound_of(context), directory, first)) as changes:
            async for change in changes:
                yield messages.change_to_proto(change)

    async def DeleteSecretVersions(
        self, request: pb.DeleteSecretVersionsRequest, context: Context
    ) -> pb.DeleteSecretVersionsResponse:
        """Soft delete."""
        path, numbers = SecretPath.parse(request.path), messages.numbers_of(request.versions)
        inbound = inbound_of(context)
        asked = Asked("DeleteSecretVersions", request, inbound)
        done = await self._act(
            inbound, "DeleteSecretVersions", "delete", path.policy_path,
            lambda view, caller: self._secrets.delete(view, caller, path, numbers, asked),
        )  # fmt: skip
        return pb.DeleteSecretVersionsResponse(
            path=path.text, versions=done.value.versions, revision=_revision(done)
        )

    async def UndeleteSecretVersions(
        self, request: pb.UndeleteSecretVersionsRequest, context: Context
    ) -> pb.UndeleteSecretVersionsResponse:
        """Take a soft delete back."""
        path, numbers = SecretPath.parse(request.path), messages.numbers_of(request.versions, needed=True)
        inbound = inbound_of(context)
        asked = Asked("UndeleteSecretVersions", request, inbound)
        done = await self._act(
            inbound, "UndeleteSecretVersions", "delete", path.policy_path,
            lambda view, caller: self._secrets.undelete(view, caller, path, numbers, asked),
        )  # fmt: skip
        return pb.UndeleteSecretVersionsResponse(
            path=path.text, versions=done.value.versions, revision=_revision(done)
        )

    async def DestroySecretVersions(
        self, request: pb.DestroySecretVersionsRequest, context: Context
    ) -> pb.DestroySecretVersionsResponse:
        """Remove the envelopes for good; the purge duty removes them from etcd's history."""
        path, numbers = SecretPath.parse(request.path), messages.numbers_of(request.versions, needed=True)
        inbound = inbound_of(context)
        asked = Asked("DestroySecretVersions", request, inbound)
        done = await self._act(
            inbound, "DestroySecretVersions", "delete", path.policy_path,
            lambda view, caller: self._secrets.destroy(view, caller, path, numbers, asked),
        )  # fmt: skip
        return pb.DestroySecretVersionsResponse(
            path=path.text, versions=done.value.versions, revision=_revision(done)
        )

    async def ReadSecretMetadata(
        self, request: pb.ReadSecretMetadataRequest, context: Context
    ) -> pb.ReadSecretMetadataResponse:
        """Everything about a secret but its values."""
        path = SecretPath.parse(request.path)
        done = await self._act(
            inbound_of(context), "ReadSecretMetadata", "metadata", path.policy_path,
            lambda view, _: self._secrets.metadata(view, path),
        )  # fmt: skip
        return messages.metadata_to_proto(path, done.value, done.revision)

    async def UpdateSecretMetadata(
        self, request: pb.UpdateSecretMetadataRequest, context: Context
    ) -> pb.UpdateSecretMetadataResponse:
        """Change the settings that are present."""
        path, settings = SecretPath.parse(request.path), messages.settings_of(request)
        inbound = inbound_of(context)
        asked = Asked("UpdateSecretMetadata", request, inbound)
        done = await self._act(
            inbound, "UpdateSecretMetadata", "metadata", path.policy_path,
            lambda view, caller: self._secrets.configure(view, caller, path, settings, asked),
        )  # fmt: skip
        return pb.UpdateSecretMetadataResponse(path=path.text, revision=_revision(done))

    async def DeleteSecretMetadata(
        self, request: pb.DeleteSecretMetadataRequest, context: Context
    ) -> pb.DeleteSecretMetadataResponse:
        """Remove the secret with all that belongs to it."""
        path, inbound = SecretPath.parse(request.path), inbound_of(context)
        asked = Asked("DeleteSecretMetadata", request, inbound)
        done = await self._act(
            inbound, "DeleteSecretMetadata", "metadata", path.policy_path,
            lambda view, caller: self._secrets.remove(view, caller, path, asked),
        )  # fmt: skip
        return pb.DeleteSecretMetadataResponse(path=path.text, revision=_revision(done))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        """Names below a directory; audited once, guarded at every read.

        A caller is authorized before it waits for its turn to read.
        """
        directory, size = DirectoryPath.parse(request.prefix), paging.page_size(request.page_size)
        keys = self._guard.lookup.require_keys()
        page = Listing(directory, size, request.page_token, keys, recursive=request.recursive)
        inbound = inbound_of(context)
        await self._act(inbound, "ListSecrets", "list", directory.policy_path, lambda *_: None)

        def decide(view: View) -> None:
            caller = self._guard.require(view, inbound, "list", directory.policy_path)
            start, end, limit = page.wanted()
            view.fetch(start, end, limit, keys_only=True)
            view.reveal(lambda rows: page.take((row.key for row in rows), caller.allows))

        # etcd walks all that lies below a directory for each read, so a page also ends by the clock.
        enough = time.monotonic() + PAGE_SECONDS
        while not page.is_over:
            async with self._walking:
                await self._pipeline.submit(Work(decide, None, inbound.deadline))
            if time.monotonic() >= enough:
                break
        return pb.ListSecretsResponse(names=page.names, next_page_token=page.token)

    async def _act(
        self,
        inbound: Inbound,
        op: str,
        capability: str,
        path: str,
        decide: Callable[[View, Caller], T],
        weight: int = 0,
    ) -> Outcome[T]:
        """Guard, decide, audit and carry out in one transaction; `weight`: as of `Work`."""

        def guarded(view: View) -> T:
            return decide(view, self._guard.require(view, inbound, capability, path))

        draft = draft_of(inbound, op, path)
        return await self._pipeline.submit(Work(guarded, draft, inbound.deadline, weight=weight))


def _revision(done: Outcome[Done]) -> str:
    """The change's revision; for a repetition that of the first time."""
    return str(done.value.revision or done.revision)
