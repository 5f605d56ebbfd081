"""The public surface as the generated descriptors tell it: every RPC, its REST bindings, its access rule."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongbox.options.v1 import rule_pb2

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of a service."""

    service: str
    name: str
    bindings: tuple[tuple[str, str], ...]  # verb and path template
    rule: rule_pb2.Rule
    request: type[Message]
    response: type[Message]
    is_streaming: bool

    @property
    def full_name(self) -> str:
        """As it stands on the wire."""
        return f"/{self.service}/{self.name}"

    def __repr__(self) -> str:
        return self.name


@cache
def all_rpcs() -> tuple[Rpc, ...]:
    """Every RPC of every service of ours, those for peers included."""
    return tuple(_found())


@cache
def public_rpcs() -> tuple[Rpc, ...]:
    """What the gateway routes."""
    return tuple(rpc for rpc in all_rpcs() if not rpc.rule.peers)


def rpc_named(name: str) -> Rpc:
    """Raises LookupError."""
    for rpc in all_rpcs():
        if rpc.name == name:
            return rpc
    raise LookupError(name)


def _found() -> Iterator[Rpc]:
    for path in sorted(_ROOT.glob("strongbox/*/v1/*_service_pb2.py")):
        module = importlib.import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield _rpc_of(str(service.full_name), method)


def _rpc_of(service: str, method: MethodDescriptor) -> Rpc:
    options = method.GetOptions()
    http: Any = options.Extensions[annotations_pb2.http]
    bindings = [_binding(one) for one in (http, *http.additional_bindings)]
    return Rpc(
        service, method.name, tuple(binding for binding in bindings if binding[1]),
        options.Extensions[rule_pb2.rule],
        GetMessageClass(method.input_type), GetMessageClass(method.output_type),
        bool(method.client_streaming or method.server_streaming),
    )  # fmt: skip


def _binding(http: Any) -> tuple[str, str]:
    verb = str(http.WhichOneof("pattern") or "")
    return verb.upper(), str(getattr(http, verb)) if verb else ""
