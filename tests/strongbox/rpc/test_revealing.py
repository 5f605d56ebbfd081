"""A seal that answers in the middle of each call that answers with a secret, over real mutual TLS."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from strongbox import unsealed_proof
from strongbox.errors import Internal, NoQuorum, Sealed, StrongBoxError, UnknownOutcome
from strongbox.options.v1 import rule_pb2
from strongbox.rpc import method_rules
from strongbox.rpc.channel import open_channel
from strongbox.rpc.error_mapping import to_error
from strongbox.rpc.interceptors.call_log import Reporter
from strongbox.rpc.key_client import PROOF_S, KeyClient
from strongbox.rpc.server import Server
from tests.support.certs import Identities
from tests.support.surface import Rpc, all_rpcs

REVEALING = [rpc for rpc in all_rpcs() if rpc.rule.reveals]
OTHERS = [rpc for rpc in all_rpcs() if not rpc.rule.reveals and not rpc.is_streaming and not rpc.rule.peers]


def generated(rpc: Rpc) -> Any:
    service = rpc.service.rsplit(".", 1)[1].removesuffix("Service").lower()
    return importlib.import_module(f"strongbox.{service}.v1.{service}_service_pb2_grpc")


class Place:
    """A server of every public service, whose handlers do as they are told; and a KeyClient that has keys."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self.keys = KeyClient(identities.of("kv"))
        self.keys._record_keys = object()  # type: ignore[assignment]  # unsealed
        self.proves, self.meanwhile = True, lambda: None
        self.server = Server(
            identities.of("kv"), Reporter(), require_unsealed_since=self.keys.require_unsealed_since
        )
        for service in sorted({rpc.service for rpc in (*REVEALING, *OTHERS)}):
            rpcs = [rpc for rpc in all_rpcs() if rpc.service == service]
            made, name = generated(rpcs[0]), service.rsplit(".", 1)[1]
            servicer = type(
                name, (getattr(made, f"{name}Servicer"),), {r.name: self._handler(r) for r in rpcs}
            )
            self.server.serve(getattr(made, f"add_{name}Servicer_to_server"), servicer(), service)
        self.address = f"127.0.0.1:{self.server.bind('127.0.0.1:0')}"

    def seal(self) -> None:
        """This process hears of it."""
        self.keys._drop()

    def _handler(self, rpc: Rpc) -> Any:
        async def handler(_: Any, request: Any, context: Any) -> Any:
            if self.proves:
                unsealed_proof.note(time.monotonic())
            self.meanwhile()
            return rpc.response()

        return handler

    async def ask(self, rpc: Rpc) -> Any:
        async with open_channel(self.address, "kv", self._identities.of("gateway")) as channel:
            stub = getattr(generated(rpc), f"{rpc.service.rsplit('.', 1)[1]}Stub")(channel)
            try:
                return await getattr(stub, rpc.name)(rpc.request(), timeout=10)
            except grpc.aio.AioRpcError as failure:
                raise to_error(failure) from None


@pytest.fixture
async def place(identities: Identities) -> AsyncIterator[Place]:
    made = Place(identities)
    await made.server.start()
    yield made
    await made.server.stop(0)


def refusals(rpc: Rpc, plain: type[StrongBoxError]) -> type[StrongBoxError]:
    """`Sealed` and `NoQuorum` promise that nothing was done: only what may be asked again says so."""
    return plain if rpc.rule.retryable else UnknownOutcome


@pytest.mark.parametrize("rpc", REVEALING, ids=lambda rpc: rpc.name)
async def test_nothing_leaves_once_the_process_has_heard_of_the_sealing(place: Place, rpc: Rpc) -> None:
    await place.ask(rpc)
    place.meanwhile = place.seal
    with pytest.raises(refusals(rpc, Sealed)):
        await place.ask(rpc)


@pytest.mark.parametrize("rpc", REVEALING, ids=lambda rpc: rpc.name)
async def test_nothing_leaves_once_its_proof_is_older_than_seal_waits_for(
    place: Place, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was stopped between its proof and its answer, and has heard nothing."""
    asleep = time.monotonic

    def stopped() -> None:
        monkeypatch.setattr("strongbox.rpc.key_client.time.monotonic", lambda: asleep() + PROOF_S + 0.1)

    place.meanwhile = stopped
    with pytest.raises(refusals(rpc, NoQuorum)):
        await place.ask(rpc)


@pytest.mark.parametrize("rpc", REVEALING, ids=lambda rpc: rpc.name)
async def test_an_answer_that_rests_on_no_proof_does_not_leave(place: Place, rpc: Rpc) -> None:
    place.proves = False
    with pytest.raises(Internal):
        await place.ask(rpc)


@pytest.mark.parametrize("rpc", OTHERS, ids=lambda rpc: rpc.name)
async def test_what_holds_no_secret_is_answered_all_the_same(place: Place, rpc: Rpc) -> None:
    place.proves, place.meanwhile = False, place.seal
    await place.ask(rpc)


def test_a_stream_that_would_reveal_is_refused_at_the_start() -> None:
    made = descriptor_pb2.FileDescriptorProto(name="test/told.proto", package="test.told", syntax="proto3")
    made.dependency.append(rule_pb2.DESCRIPTOR.name)
    made.message_type.add(name="Empty")
    method = made.service.add(name="Told").method.add(
        name="Stream", input_type=".test.told.Empty", output_type=".test.told.Empty", server_streaming=True
    )
    method.options.Extensions[rule_pb2.rule].reveals = True
    descriptor_pool.Default().Add(made)
    with pytest.raises(method_rules.NoRule, match="Stream"):
        method_rules.rules_of("test.told.Told")
