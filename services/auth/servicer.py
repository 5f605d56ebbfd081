"""AuthService on the wire: each handler validates, decides through the guard, and replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio

from services.auth import messages, policies, tokens
from services.auth.listing import shown_accessors, shown_policies
from services.auth.policies import Policies
from services.auth.repository import Repository
from services.auth.tokens import Tokens
from strongbox.access.durations import parse_duration
from strongbox.access.guard import Caller, Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1 import auth_service_pb2_grpc as rpc
from strongbox.rpc.inbound import Inbound, inbound_of
from strongbox.store import keyspace, paging
from strongbox.store.pipeline import Outcome, Pipeline, Work
from strongbox.store.view import View
from strongbox.trail.outbox import draft_of

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
_CHUNK = 50  # tokens looked at by one transaction: each is a compare, and so is each of its ancestors (16)


class AuthServicer(rpc.AuthServiceServicer):
    """Tokens and policies over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        self._pipeline, self._guard = pipeline, guard
        repository = Repository(guard.lookup)
        self._tokens, self._policies = Tokens(guard, repository), Policies(repository)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """Make a child of the caller's token; the token is in this answer and nowhere else."""
        wanted, fresh = messages.wanted_of(request), tokens.Fresh.make()
        done = await self._act(
            context, "CreateToken", "write", tokens.PATH,
            lambda view, caller: self._tokens.create(view, caller, wanted, fresh),
        )  # fmt: skip
        return messages.created_to_proto(done.value, fresh.token)

    async def LookupSelf(self, request: pb.LookupSelfRequest, context: Context) -> pb.LookupSelfResponse:
        """The caller's own token."""
        done = await self._act(
            context, "LookupSelf", "read", tokens.SELF_PATH,
            lambda view, caller: tokens.Told(caller.record, view.now_ms),
        )  # fmt: skip
        return pb.LookupSelfResponse(**messages.info_to_proto(done.value))

    async def RenewSelf(self, request: pb.RenewSelfRequest, context: Context) -> pb.RenewSelfResponse:
        """Move the expiry of the caller's own token."""
        increment = parse_duration(request.increment, "increment")
        done = await self._act(
            context, "RenewSelf", "write", tokens.SELF_PATH,
            lambda view, caller: self._tokens.renew(view, caller.accessor, increment),
        )  # fmt: skip
        return pb.RenewSelfResponse(
            accessor=done.value.record.accessor,
            ttl=messages.ttl_of(done.value),
            expires_at=messages.moment(done.value.record.expires_ms),
        )

    async def RevokeSelf(self, request: pb.RevokeSelfRequest, context: Context) -> pb.RevokeSelfResponse:
        """Revoke the caller's own token; its children are dead with it."""

        def decide(view: View, caller: Caller) -> str:
            self._tokens.revoke(view, caller.accessor)
            return caller.accessor

        done = await self._act(context, "RevokeSelf", "delete", tokens.SELF_PATH, decide)
        return pb.RevokeSelfResponse(accessor=done.value)

    async def LookupToken(self, request: pb.LookupTokenRequest, context: Context) -> pb.LookupTokenResponse:
        """A living token by its accessor."""
        accessor = request.accessor
        done = await self._act(
            context, "LookupToken", "read", tokens.path_of(accessor),
            lambda view, _: self._tokens.lookup(view, accessor),
        )  # fmt: skip
        return pb.LookupTokenResponse(**messages.info_to_proto(done.value))

    async def RenewToken(self, request: pb.RenewTokenRequest, context: Context) -> pb.RenewTokenResponse:
        """Move a token's expiry."""
        accessor = request.accessor
        increment = parse_duration(request.increment, "increment")
        done = await self._act(
            context, "RenewToken", "write", tokens.path_of(accessor),
            lambda view, _: self._tokens.renew(view, accessor, increment),
        )  # fmt: skip
        return pb.RenewTokenResponse(
            accessor=accessor,
            ttl=messages.ttl_of(done.value),
            expires_at=messages.moment(done.value.record.expires_ms),
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        """Revoke a token; revoking the revoked succeeds."""
        accessor = request.accessor
        await self._act(
            context, "RevokeToken", "delete", tokens.path_of(accessor),
            lambda view, _: self._tokens.revoke(view, accessor),
        )  # fmt: skip
        return pb.RevokeTokenResponse(accessor=accessor)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """Accessors of living tokens; a page may hold fewer than asked, or none, and not be the last."""
        keys, size = self._guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, keyspace.ACCESSORS, request.page_token)

        def decide(view: View, caller: Caller) -> Caller:
            view.fetch(start, end, limit=size)
            return caller

        inbound = inbound_of(context)
        done = await self._act(context, "ListTokens", "list", tokens.PATH, decide)
        shown = shown_accessors(done.value, done.rows)
        living = await self._living(shown, inbound)
        token = paging.next_token(keys, keyspace.ACCESSORS, [row.key for row in done.rows], size)
        return pb.ListTokensResponse(accessors=living, next_page_token=token)

    async def _living(self, shown: list[tuple[str, str]], inbound: Inbound) -> list[str]:
        """Of (accessor, digest) pairs, the accessors of tokens that live."""
        found: list[str] = []
        for start in range(0, len(shown), _CHUNK):
            decide = _telling(self._tokens, shown[start : start + _CHUNK])
            found += (await self._pipeline.submit(Work(decide, None, inbound.deadline))).value
        return found

    async def WritePolicy(self, request: pb.WritePolicyRequest, context: Context) -> pb.WritePolicyResponse:
        """Make or replace a policy; it decides from the very next request on."""
        name, rules = policies.require_writable(request.name), messages.rules_of(request)
        done = await self._act(
            context, "WritePolicy", "write", policies.policy_path(name),
            lambda view, _: self._policies.write(view, name, rules),
        )  # fmt: skip
        return pb.WritePolicyResponse(name=name, revision=str(done.revision))

    async def ReadPolicy(self, request: pb.ReadPolicyRequest, context: Context) -> pb.ReadPolicyResponse:
        """A policy's rules."""
        name = policies.require_readable(request.name)
        done = await self._act(
            context, "ReadPolicy", "read", policies.policy_path(name),
            lambda view, _: self._policies.read(view, name),
        )  # fmt: skip
        return messages.policy_to_proto(done.value)

    async def DeletePolicy(
        self, request: pb.DeletePolicyRequest, context: Context
    ) -> pb.DeletePolicyResponse:
        """Remove a policy; tokens that name it are refused from the very next request on."""
        name = policies.require_writable(request.name)
        await self._act(
            context, "DeletePolicy", "delete", policies.policy_path(name),
            lambda view, _: self._policies.delete(view, name),
        )  # fmt: skip
        return pb.DeletePolicyResponse(name=name)

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        """Names of policies in the order of their folded names; the built-in ones lead the first page."""
        keys, size = self._guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, keyspace.POLICIES, request.page_token)

        def decide(view: View, caller: Caller) -> Caller:
            view.fetch(start, end, limit=size)
            return caller

        done = await self._act(context, "ListPolicies", "list", policies.policy_path(""), decide)
        names = shown_policies(done.value, done.rows, with_built_in=not request.page_token)
        token = paging.next_token(keys, keyspace.POLICIES, [row.key for row in done.rows], size)
        return pb.ListPoliciesResponse(names=names, next_page_token=token)

    async def _act(
        self, context: Context, op: str, capability: str, path: str, decide: Callable[[View, Caller], T]
    ) -> Outcome[T]:
        """Guard, decide, audit and carry out in one transaction."""
        inbound: Inbound = inbound_of(context)

        def guarded(view: View) -> T:
            return decide(view, self._guard.require(view, inbound, capability, path))

        return await self._pipeline.submit(Work(guarded, draft_of(inbound, op, path), inbound.deadline))


def _telling(domain: Tokens, some: list[tuple[str, str]]) -> Callable[[View], list[str]]:
    return lambda view: domain.living(view, some)
