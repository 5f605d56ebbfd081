"""Routes from the protos: each public RPC's `rule` option says how the gateway may treat it.

An RPC for peers only has no route, a proto service of such RPCs is not listed for transcoding, and an RPC
without a rule raises: unlisted means refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf import descriptor_pb2 as descriptors
from google.rpc import error_details_pb2

from strongbox.gateway.source_limits import Limits, by_source, without_refused
from strongbox.options.v1 import rule_pb2

_TYPE = "type.googleapis.com/envoy.extensions"


class RuleError(Exception):
    """An RPC has no access rule, or is public and has no REST path."""


@dataclass(frozen=True, slots=True)
class Method:
    """One public RPC as the gateway sees it."""

    full_name: str
    rule: rule_pb2.Rule
    streaming: bool

    @property
    def service(self) -> str:
        """The service that answers: `kv` of `strongbox.kv.v1.KVService/ReadSecret`."""
        return self.full_name.split(".")[1]

    def values(self, limits: Limits) -> dict[str, Any]:
        """For the template."""
        return {
            "PATH": f"/{self.full_name}",
            "CLUSTER": f"{self.service}_local" if self.rule.local_node else self.service,
            # A watch may have nothing to tell for hours; a peer that is gone is found by HTTP/2's pings.
            "IDLE_TIMEOUT": "0s" if self.streaming else "60s",
            "TIMEOUT": "0s" if self.streaming else "5s" if self.rule.slow else "2s",
            "RETRY_POLICY": _retry_policy(self.rule),
            "FOR_SAFETY": self.rule.for_safety,
            "FILTER_SETTINGS": _filter_settings(self.rule, limits),
        }


def load_descriptors(binary: bytes) -> descriptors.FileDescriptorSet:
    """The shipped descriptor set and the error details that services attach (the transcoder prints them)."""
    known = descriptors.FileDescriptorSet.FromString(binary)
    details = descriptors.FileDescriptorProto()
    error_details_pb2.DESCRIPTOR.CopyToProto(details)
    names = {file.name for file in known.file}
    for needed in ("google/protobuf/duration.proto", "google/protobuf/any.proto"):
        if needed not in names:
            known.file.append(_builtin(needed))
    if details.name not in names:
        known.file.append(details)
    return known


def public_methods(known: descriptors.FileDescriptorSet) -> list[Method]:
    """Every RPC a client may call, in the order of the protos. Raises RuleError."""
    return [method for method in _methods(known) if not method.rule.peers]


def rules(known: descriptors.FileDescriptorSet) -> Iterator[tuple[str, rule_pb2.Rule]]:
    """Every RPC, those for peers too, and its rule. Raises RuleError."""
    return ((method.full_name, method.rule) for method in _methods(known))


def public_services(methods: list[Method]) -> list[str]:
    """The proto services that are transcoded."""
    return sorted({method.full_name.split("/")[0] for method in methods})


def refused_queries(known: descriptors.FileDescriptorSet) -> list[dict[str, str]]:
    """Regular expressions (RE2, of the whole of `:path`) of REST calls that are refused for their query.

    The transcoder lets `?path=` override what the URL's path says: the call is then about another path than
    the one that logs and proxies on its way see. It also decodes names, which no honest client ever encodes.
    """
    bound = sorted({(rest[:place], field) for rest in _rest_paths(known) for place, field in _fields(rest)})
    named = [rf"{re.escape(start)}[^?]*\?(.*&)?{field}([.=&].*)?" for start, field in bound]
    return [{"QUERY": query} for query in (r"/v1/[^?]*\?(.*&)?[^=&]*%[^=&]*([=&].*)?", *named)]


def head_paths(known: descriptors.FileDescriptorSet) -> list[dict[str, str]]:
    """What monitors ask: these REST paths answer HEAD as well as GET."""
    found = [rpc.options for rpc in _rpcs(known) if rpc.options.Extensions[rule_pb2.rule].local_node]
    return [{"PATH": options.Extensions[annotations_pb2.http].get} for options in found]


def _rpcs(known: descriptors.FileDescriptorSet) -> Iterator[descriptors.MethodDescriptorProto]:
    for file in known.file:
        for service in file.service:
            yield from service.method


def _rest_paths(known: descriptors.FileDescriptorSet) -> Iterator[str]:
    for rpc in _rpcs(known):
        rule = rpc.options.Extensions[annotations_pb2.http]
        for binding in (rule, *rule.additional_bindings):
            yield str(getattr(binding, binding.WhichOneof("pattern") or "get"))


def _fields(rest: str) -> Iterator[tuple[int, str]]:
    """Where each field stands in a path such as `/v1/tokens/{accessor}/renew`, and its name."""
    for found in re.finditer(r"\{([a-z_]+)(?:=[^}]*)?\}", rest):
        yield found.start(), found[1]


def _methods(known: descriptors.FileDescriptorSet) -> Iterator[Method]:
    for file in known.file:
        for service in file.service:
            for rpc in service.method:
                name = f"{file.package}.{service.name}/{rpc.name}"
                if not rpc.options.HasExtension(rule_pb2.rule):
                    raise RuleError(f"{name} has no access rule")
                rule = rpc.options.Extensions[rule_pb2.rule]
                if not rule.peers and not rpc.options.HasExtension(annotations_pb2.http):
                    raise RuleError(f"{name} is public and has no REST path")
                yield Method(name, rule, rpc.server_streaming)


def _retry_policy(rule: rule_pb2.Rule) -> dict[str, Any]:
    """What may be sent again: always what never reached a replica; the rest only where it is harmless."""
    conditions = ["connect-failure", "refused-stream"]
    if rule.retryable:  # (cancelled: what a stopping server says of calls still under way)
        conditions += ["reset", "cancelled"]
    policy: dict[str, Any] = {
        "retry_on": ",".join(conditions),
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if rule.local_node:
        # There is no other replica, but the one there is may be restarting itself after a seal (two
        # seconds). At most 1.8 s of pauses, on average 0.9 s: a dead one is still a 503, not a 504.
        return policy | {
            "num_retries": 8,
            "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.25s"},
        }
    if rule.retryable:
        policy["retry_on"] += ",retriable-headers"
        policy["retriable_headers"] = [{"name": "x-strongbox-retry", "present_match": True}]
    # Tried elsewhere: at another replica, in the other priority.
    predicate = _extension("retry_host_predicates.previous_hosts", "PreviousHostsPredicate")
    policy["retry_host_predicate"] = [predicate]
    policy["retry_priority"] = _extension(
        "retry_priorities.previous_priorities", "PreviousPrioritiesConfig", update_frequency=1
    )
    policy["host_selection_retry_max_attempts"] = "3"
    return policy


def _extension(name: str, message: str, **settings: object) -> dict[str, Any]:
    folder = name.replace("retry_host_predicates", "retry.host").replace("retry_priorities", "retry.priority")
    return {"name": f"envoy.{name}", "typed_config": {"@type": f"{_TYPE}.{folder}.v3.{message}", **settings}}


def _filter_settings(rule: rule_pb2.Rule, limits: Limits) -> dict[str, Any]:
    if rule.token_required:
        return {}
    limit = (
        by_source("status", limits.gateway_status_rate, total=False)
        if rule.local_node
        else by_source("open", limits.gateway_open_rate)
    )
    return limit | without_refused()


def _builtin(name: str) -> descriptors.FileDescriptorProto:
    found = {"google/protobuf/any.proto": any_pb2, "google/protobuf/duration.proto": duration_pb2}[name]
    copy = descriptors.FileDescriptorProto()
    found.DESCRIPTOR.CopyToProto(copy)
    return copy
