"""Policies: what a token may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from strongbox.client.transport import Wire
from strongbox.errors import InvalidInput
from strongbox.paths import require_name

_FIELDS = {"path", "capabilities"}


class Policies:
    """Named lists of rules; a rule is `{"path": "secret/app/*", "capabilities": ["read"]}`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._stub = AuthServiceStub(wire.channel)

    def write(self, name: str, rules: Sequence[Mapping[str, Any]]) -> pb.WritePolicyResponse:
        """Make or replace a policy. Raises InvalidInput for a misspelt field, which REST would drop."""
        request = pb.WritePolicyRequest(name=require_name(name, "policy"), rules=map(_to_rule, rules))
        return self._wire.call(self._stub.WritePolicy, request)

    def read(self, name: str) -> pb.ReadPolicyResponse:
        """A policy's rules."""
        return self._wire.call(self._stub.ReadPolicy, pb.ReadPolicyRequest(name=require_name(name, "policy")))

    def delete(self, name: str) -> pb.DeletePolicyResponse:
        """Remove a policy; tokens that name it are refused from the next request on."""
        request = pb.DeletePolicyRequest(name=require_name(name, "policy"))
        return self._wire.call(self._stub.DeletePolicy, request)

    def list(self) -> Iterator[str]:
        """Names of policies, page by page as they are asked for."""
        token = ""
        while True:
            page = self._wire.call(self._stub.ListPolicies, pb.ListPoliciesRequest(page_token=token))
            yield from page.names
            token = page.next_page_token
            if not token:
                return

    def explain(
        self, path: str, capability: str, *, accessor: str = "", policies: Sequence[str] = ()
    ) -> pb.ExplainAccessResponse:
        """Which rule decides about `capability` on a policy path, for a token or for policies."""
        request = pb.ExplainAccessRequest(
            accessor=accessor, policies=policies, path=path, capability=capability
        )
        return self._wire.call(self._stub.ExplainAccess, request)


def _to_rule(rule: Mapping[str, Any]) -> pb.PolicyRule:
    if not isinstance(rule, Mapping) or set(rule) != _FIELDS:
        raise InvalidInput('a rule has "path" and "capabilities", and nothing else')
    path, capabilities = rule["path"], rule["capabilities"]
    if not isinstance(path, str) or not isinstance(capabilities, list | tuple):
        raise InvalidInput("a rule's path is text, its capabilities a list of words")
    try:
        return pb.PolicyRule(path=path, capabilities=capabilities)
    except (TypeError, ValueError):
        raise InvalidInput("a rule's capabilities are a list of words") from None
