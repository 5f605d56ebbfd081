"""Calls about tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.auth import messages, tokens
from services.auth.calls.guarded_call import Acting
from services.auth.list_filter import shown_accessors
from services.auth.tokens import Tokens
from strongbox.access.guard import Caller, Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.durations import parse_duration
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.store import keyspace, paging
from strongbox.store.decisions.pipeline import Pipeline, Work
from strongbox.store.decisions.view import View

_CHUNK = 50  # tokens looked at by one transaction: each is a compare, and so is each of its ancestors (16)


class TokenCalls(Acting):
    """Tokens over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard, domain: Tokens) -> None:
        Acting.__init__(self, pipeline, guard)
        self._tokens = domain

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """Make a child of the caller's token; the token is in this answer and nowhere else."""
        wanted, fresh = messages.wanted_of(request), tokens.Fresh.make()
        done = await self.act(
            context, "CreateToken", "write", tokens.PATH,
            lambda view, caller: self._tokens.create(view, caller, wanted, fresh),
        )  # fmt: skip
        return messages.token_made(done.value, fresh.token)

    async def LookupSelf(self, request: pb.LookupSelfRequest, context: Any) -> pb.LookupSelfResponse:
        """The caller's own token."""
        done = await self.act(
            context, "LookupSelf", "read", tokens.SELF_PATH,
            lambda view, caller: tokens.Told(caller.record, view.now_ms),
        )  # fmt: skip
        return pb.LookupSelfResponse(**messages.info_to_proto(done.value))

    async def RenewSelf(self, request: pb.RenewSelfRequest, context: Any) -> pb.RenewSelfResponse:
        """Move the expiry of the caller's own token."""
        increment = parse_duration(request.increment, "increment")
        done = await self.act(
            context, "RenewSelf", "write", tokens.SELF_PATH,
            lambda view, caller: self._tokens.renew(view, caller.accessor, increment),
        )  # fmt: skip
        return pb.RenewSelfResponse(
            accessor=done.value.record.accessor,
            ttl=messages.ttl_of(done.value),
            expires_at=messages.moment(done.value.record.expires_ms),
        )

    async def RevokeSelf(self, request: pb.RevokeSelfRequest, context: Any) -> pb.RevokeSelfResponse:
        """Revoke the caller's own token; its children are dead with it."""

        def decide(view: View, caller: Caller) -> str:
            self._tokens.revoke(view, caller.accessor)
            return caller.accessor

        done = await self.act(context, "RevokeSelf", "delete", tokens.SELF_PATH, decide)
        return pb.RevokeSelfResponse(accessor=done.value)

    async def LookupToken(self, request: pb.LookupTokenRequest, context: Any) -> pb.LookupTokenResponse:
        """A living token by its accessor."""
        accessor = request.accessor
        done = await self.act(
            context, "LookupToken", "read", tokens.path_of(accessor),
            lambda view, _: self._tokens.lookup(view, accessor),
        )  # fmt: skip
        return pb.LookupTokenResponse(**messages.info_to_proto(done.value))

    async def RenewToken(self, request: pb.RenewTokenRequest, context: Any) -> pb.RenewTokenResponse:
        """Move a token's expiry."""
        accessor = request.accessor
        increment = parse_duration(request.increment, "increment")
        done = await self.act(
            context, "RenewToken", "write", tokens.path_of(accessor),
            lambda view, _: self._tokens.renew(view, accessor, increment),
        )  # fmt: skip
        return pb.RenewTokenResponse(
            accessor=accessor,
            ttl=messages.ttl_of(done.value),
            expires_at=messages.moment(done.value.record.expires_ms),
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """Revoke a token; revoking it again succeeds."""
        accessor = request.accessor
        await self.act(
            context, "RevokeToken", "delete", tokens.path_of(accessor),
            lambda view, _: self._tokens.revoke(view, accessor),
        )  # fmt: skip
        return pb.RevokeTokenResponse(accessor=accessor)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """Accessors of living tokens; a page may hold fewer than asked, or none, and not be the last."""
        keys, size = self._guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, keyspace.ACCESSORS, request.page_token)

        def decide(view: View, caller: Caller) -> list[tuple[str, str]]:
            view.fetch(start, end, limit=size)
            view.reveal(lambda rows: shown_accessors(caller, rows))
            return []

        inbound = inbound_of(context)
        done = await self.act(context, "ListTokens", "list", tokens.PATH, decide)
        living = await self._living(done.value, inbound)
        token = paging.next_token(keys, keyspace.ACCESSORS, [row.key for row in done.rows], size)
        return pb.ListTokensResponse(accessors=living, next_page_token=token)

    async def _living(self, shown: list[tuple[str, str]], inbound: Inbound) -> list[str]:
        """Of (accessor, digest) pairs, the accessors of tokens that live."""
        found: list[str] = []
        for start in range(0, len(shown), _CHUNK):
            decide = self._telling(shown[start : start + _CHUNK], inbound)
            found += (await self._pipeline.submit(Work(decide, None, inbound.deadline))).value
        return found

    def _telling(self, some: list[tuple[str, str]], inbound: Inbound) -> Callable[[View], list[str]]:
        def decide(view: View) -> list[str]:
            self._guard.require(view, inbound, "list", tokens.PATH)
            return self._tokens.living(view, some)

        return decide
