"""Calls about policies."""

from __future__ import annotations

import asyncio
from typing import Any

from services.auth import messages, policies
from services.auth.calls.guarded_call import Acting
from services.auth.list_filter import shown_policies
from services.auth.policies import Policies
from services.auth.policy_explain import Explain, Question
from services.auth.repository import MAX_POLICY_BYTES, Repository
from services.auth.tokens import Tokens
from strongbox.access.guard import Caller, Guard
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.errors import TooLarge
from strongbox.store import keyspace, paging
from strongbox.store.decisions.pipeline import Pipeline
from strongbox.store.decisions.view import View

_EXPLAIN_PATH = "sys/policies/"


class PolicyCalls(Acting):
    """Policies over the pipeline."""

    def __init__(self, pipeline: Pipeline, guard: Guard) -> None:
        Acting.__init__(self, pipeline, guard)
        repository = Repository(guard.lookup)
        self._policies, self._explain = Policies(repository), Explain(guard, Tokens(guard, repository))

    async def WritePolicy(self, request: pb.WritePolicyRequest, context: Any) -> pb.WritePolicyResponse:
        """Make or replace a policy; it decides from the very next request on."""
        name = policies.require_writable(request.name)
        path = policies.policy_path(name)
        if len(request.rules) > policies.MAX_RULES or request.ByteSize() > MAX_POLICY_BYTES:
            raise TooLarge(f"a policy has at most {policies.MAX_RULES} rules and {MAX_POLICY_BYTES} bytes")
        # Comparing rules takes up to a tenth of a second: only for a caller that may write, and in a thread.
        await self.allow(context, "WritePolicy", path, lambda view, caller: None)
        rules = await asyncio.to_thread(messages.rules_of, request)
        done = await self.act(
            context, "WritePolicy", "write", path,
            lambda view, _: self._policies.write(view, name, rules),
        )  # fmt: skip
        return pb.WritePolicyResponse(name=name, revision=str(done.revision))

    async def ReadPolicy(self, request: pb.ReadPolicyRequest, context: Any) -> pb.ReadPolicyResponse:
        """A policy's rules."""
        name = policies.require_readable(request.name)
        done = await self.act(
            context, "ReadPolicy", "read", policies.policy_path(name),
            lambda view, _: self._policies.read(view, name),
        )  # fmt: skip
        return messages.policy_to_proto(done.value)

    async def DeletePolicy(self, request: pb.DeletePolicyRequest, context: Any) -> pb.DeletePolicyResponse:
        """Remove a policy; tokens that name it are refused from the very next request on."""
        name = policies.require_writable(request.name)
        await self.act(
            context, "DeletePolicy", "delete", policies.policy_path(name),
            lambda view, _: self._policies.delete(view, name),
        )  # fmt: skip
        return pb.DeletePolicyResponse(name=name)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        """Names of policies in the order of their folded names; the built-in ones lead the first page."""
        keys, size = self._guard.lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, keyspace.POLICIES, request.page_token)

        def decide(view: View, caller: Caller) -> list[str]:
            view.fetch(start, end, limit=size)
            with_built_in = not request.page_token
            view.reveal(lambda rows: shown_policies(caller, rows, with_built_in=with_built_in))
            return []

        done = await self.act(context, "ListPolicies", "list", policies.policy_path(""), decide)
        token = paging.next_token(keys, keyspace.POLICIES, [row.key for row in done.rows], size)
        return pb.ListPoliciesResponse(names=done.value, next_page_token=token)

    async def ExplainAccess(self, request: pb.ExplainAccessRequest, context: Any) -> pb.ExplainAccessResponse:
        """What decides about a capability on a path, and what is missing."""
        question = Question.parse(request.accessor, request.policies, request.path, request.capability)
        done = await self.act(
            context, "ExplainAccess", "", _EXPLAIN_PATH,
            lambda view, caller: self._explain.answer(view, caller, question),
        )  # fmt: skip
        return pb.ExplainAccessResponse(**done.value._asdict())
