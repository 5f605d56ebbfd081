"""The border, attacked over real mutual TLS."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from strongbox import errors
from strongbox.audit.v1 import audit_peer_service_pb2 as peer_pb
from strongbox.audit.v1 import audit_peer_service_pb2_grpc as peer_rpc
from strongbox.auth.v1 import auth_service_pb2 as pb
from strongbox.auth.v1 import auth_service_pb2_grpc as rpc
from strongbox.rpc import method_rules
from strongbox.rpc.channel import open_channel
from strongbox.rpc.error_mapping import to_error
from strongbox.rpc.interceptors.call_log import Reporter
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.rpc.server import Server
from tests.support.certs import Identities

SECRET = "hunter2-in-an-exception"


class Recorder:
    """Metrics and strangers, remembered."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.strangers: list[str] = []

    def observe(self, method: str, outcome: str, seconds: float) -> None:
        self.calls.append((method.rpartition("/")[2], outcome))


class Servicer(rpc.AuthServiceServicer, peer_rpc.AuditPeerServiceServicer):
    """Does what a test tells it to."""

    def __init__(self) -> None:
        self.inbound: Inbound | None = None
        self.raises: BaseException | None = None
        self.sleeps = 0.0
        self.was_cancelled = False

    async def LookupSelf(self, request: Any, context: Any) -> pb.LookupSelfResponse:
        self.inbound = inbound_of(context)
        try:
            await asyncio.sleep(self.sleeps)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.raises is not None:
            raise self.raises
        return pb.LookupSelfResponse(accessor="mine")

    async def StreamLines(self, request: Any, context: Any) -> AsyncIterator[peer_pb.StreamLinesResponse]:
        yield peer_pb.StreamLinesResponse(lines=[b"one"])
        if self.raises is not None:
            raise self.raises
        yield peer_pb.StreamLinesResponse(lines=[b"two"])


class Place:
    """A running server and how to call it as somebody."""

    def __init__(self, identities: Identities) -> None:
        self.sealed = False
        self.identities, self.recorder, self.servicer = identities, Recorder(), Servicer()  # type: ignore[abstract]  # the RPCs a test calls
        self.server = Server(
            identities.of("auth"),
            Reporter(self.recorder, self.recorder.strangers.append),
            lambda: self.sealed,
        )
        self.server.serve(
            rpc.add_AuthServiceServicer_to_server, self.servicer, "strongbox.auth.v1.AuthService"
        )
        self.server.serve(
            peer_rpc.add_AuditPeerServiceServicer_to_server,
            self.servicer,
            "strongbox.audit.v1.AuditPeerService",
        )
        self.address = f"127.0.0.1:{self.server.bind('127.0.0.1:0')}"

    def channel(self, who: str, to: str = "auth") -> grpc.aio.Channel:
        return open_channel(self.address, to, self.identities.of(who))

    async def ask(self, who: str = "gateway", timeout: float | None = 10.0, **metadata: str) -> Any:
        pairs = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        async with self.channel(who) as channel:
            stub: Any = rpc.AuthServiceStub(channel)
            try:
                return await stub.LookupSelf(pb.LookupSelfRequest(), metadata=pairs, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                raise to_error(failure) from failure


@pytest.fixture
async def place(identities: Identities) -> AsyncIterator[Place]:
    made = Place(identities)
    await made.server.start()
    yield made
    await made.server.stop(0)


async def test_the_handler_is_told_what_the_gateway_said(place: Place) -> None:
    answer = await place.ask(
        authorization="Bearer sbt.1",
        x_request_id="gateway-1",
        x_forwarded_for="6.6.6.6, 192.0.2.7",
        idempotency_key="k 1"[:1],
    )
    assert answer.accessor == "mine"
    inbound = place.servicer.inbound
    assert inbound is not None
    assert (inbound.token, inbound.request_id, inbound.client) == ("sbt.1", "gateway-1", "192.0.2.7")
    assert inbound.idempotency_key == "k"
    assert inbound.deadline - time.monotonic() <= method_rules.LIMIT
    assert "sbt.1" not in repr(inbound)


async def test_the_other_header_of_a_token_is_known_too(place: Place) -> None:
    await place.ask(x_vault_token="sbt.2")
    assert place.servicer.inbound is not None
    assert place.servicer.inbound.token == "sbt.2"


async def test_only_the_gateway_is_believed_about_others(place: Place) -> None:
    await place.ask("operator", x_request_id="mine", x_forwarded_for="192.0.2.7")
    inbound = place.servicer.inbound
    assert inbound is not None
    assert inbound.request_id != "mine"
    assert inbound.client == "127.0.0.1"


@pytest.mark.parametrize("told", ["", "with space", "x" * 65, "a/b"])
async def test_a_missing_or_malformed_request_id_is_replaced(place: Place, told: str) -> None:
    await place.ask(x_request_id=told)
    assert place.servicer.inbound is not None
    assert len(place.servicer.inbound.request_id) == 36


async def test_an_address_that_is_none_is_not_recorded(place: Place) -> None:
    await place.ask(x_forwarded_for="evil<script>")
    assert place.servicer.inbound is not None
    assert place.servicer.inbound.client == ""


@pytest.mark.parametrize("key", ["with space", "x" * 129])
async def test_an_idempotency_key_that_is_none_is_refused(place: Place, key: str) -> None:
    with pytest.raises(errors.InvalidInput):
        await place.ask(idempotency_key=key)


@pytest.mark.parametrize("who", ["kv", "seal", "etcd", "auth"])
async def test_a_peer_that_the_rule_does_not_list_is_refused(place: Place, who: str) -> None:
    with pytest.raises(errors.PermissionDenied):
        await place.ask(who)
    assert place.servicer.inbound is None


async def test_a_peers_rpc_is_refused_to_the_gateway(place: Place) -> None:
    async with place.channel("gateway") as channel:
        stub: Any = peer_rpc.AuditPeerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.StreamLines(peer_pb.StreamLinesRequest()).read()
    assert isinstance(to_error(failure.value), errors.PermissionDenied)


async def test_a_peers_stream_tells_all_of_it(place: Place) -> None:
    async with place.channel("audit") as channel:
        stub: Any = peer_rpc.AuditPeerServiceStub(channel)
        got = [answer.lines[0] async for answer in stub.StreamLines(peer_pb.StreamLinesRequest())]
    assert got == [b"one", b"two"]


async def test_a_stream_that_fails_says_why(place: Place) -> None:
    place.servicer.raises = errors.Sealed()
    async with place.channel("audit") as channel:
        stub: Any = peer_rpc.AuditPeerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            async for _ in stub.StreamLines(peer_pb.StreamLinesRequest()):
                pass
    assert isinstance(to_error(failure.value), errors.Sealed)


async def test_without_a_certificate_nobody_gets_in(place: Place) -> None:
    authority = place.identities.of("gateway").tls_ca.read_bytes()
    options = (("grpc.ssl_target_name_override", "auth.strongbox.internal"),)
    credentials = grpc.ssl_channel_credentials(authority)
    async with grpc.aio.secure_channel(place.address, credentials, options=options) as channel:
        stub: Any = rpc.AuthServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.LookupSelf(pb.LookupSelfRequest(), timeout=3)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_authority_is_refused(place: Place, tmp_path: Any) -> None:
    theirs = Identities(tmp_path).of("gateway")
    async with open_channel(place.address, "auth", theirs) as channel:
        stub: Any = rpc.AuthServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.LookupSelf(pb.LookupSelfRequest(), timeout=3)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_channel_to_another_service_does_not_end_here(place: Place) -> None:
    async with place.channel("gateway", to="seal") as channel:
        stub: Any = rpc.AuthServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.LookupSelf(pb.LookupSelfRequest(), timeout=3)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_refusal_keeps_its_reason_its_facts_and_the_request_id(place: Place) -> None:
    place.servicer.raises = errors.VersionMismatch(current="3")
    with pytest.raises(errors.VersionMismatch) as refusal:
        await place.ask(x_request_id="gateway-9")
    assert refusal.value.metadata == {"current": "3", "request_id": "gateway-9"}
    assert place.recorder.calls == [("LookupSelf", "VERSION_MISMATCH")]


async def test_a_refused_request_is_not_kept_until_circles_are_collected(place: Place) -> None:
    """Half a megabyte each, and the collector runs after some hundred requests."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        place.servicer.raises = errors.VersionMismatch()
        with pytest.raises(errors.VersionMismatch):
            await place.ask()
        place.servicer.raises = None
        await place.ask()
        gc.collect()
        frames = [one.f_code.co_name for one in gc.garbage if isinstance(one, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert "guarded" not in frames


async def test_a_defect_tells_the_client_nothing_of_itself(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    place.servicer.raises = RuntimeError(SECRET)
    with pytest.raises(errors.Internal) as refusal:
        await place.ask()
    assert SECRET not in refusal.value.message


async def test_a_handler_that_does_not_end_is_ended_at_its_deadline(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.servicer.sleeps = 30
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        await place.ask()
    assert time.monotonic() - started < method_rules.LIMIT + 0.5
    assert place.servicer.was_cancelled


async def test_a_deadline_is_never_later_than_the_clients_own(place: Place) -> None:
    await place.ask(timeout=0.5)
    assert place.servicer.inbound is not None
    assert place.servicer.inbound.deadline - time.monotonic() < 0.5


async def test_a_client_that_leaves_cancels_its_handler(place: Place) -> None:
    place.servicer.sleeps = 30
    call = asyncio.create_task(place.ask())
    async with asyncio.timeout(5):
        while place.servicer.inbound is None:
            await asyncio.sleep(0.01)
        call.cancel()
        while not place.servicer.was_cancelled:
            await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert place.recorder.calls == [("LookupSelf", "CANCELLED")]


@pytest.mark.parametrize(
    ("error", "sleeps", "may"),
    [
        (errors.NoQuorum(), 0.0, True),
        (errors.NoQuorum(), 1.0, False),
        (errors.UnknownOutcome(), 0.0, False),
        (errors.Sealed(), 0.0, False),
        (errors.Internal(), 0.0, False),
    ],
)
async def test_only_an_early_refusal_for_want_of_quorum_may_be_repeated(
    place: Place, error: errors.StrongBoxError, sleeps: float, may: bool
) -> None:
    place.servicer.raises, place.servicer.sleeps = error, sleeps
    with pytest.raises(errors.StrongBoxError) as refusal:
        await place.ask()
    failure = refusal.value.__cause__
    assert isinstance(failure, grpc.aio.AioRpcError)
    pairs: Any = failure.trailing_metadata()
    assert ("x-strongbox-retry" in dict(pairs)) is may


@pytest.mark.parametrize(
    "error", [errors.InvalidInput(), errors.InvalidPath(), errors.NotFound(), errors.TooLarge()]
)
async def test_sealed_wins_over_whatever_is_wrong_with_a_call(
    place: Place, error: errors.StrongBoxError
) -> None:
    place.servicer.raises, place.sealed = error, True
    with pytest.raises(errors.Sealed):
        await place.ask()
    with pytest.raises(errors.Sealed):
        await place.ask(idempotency_key="no key")
    place.sealed = False
    with pytest.raises(type(error)):
        await place.ask()


@pytest.mark.parametrize(
    "error", [errors.NotInitialized(), errors.NoQuorum(), errors.PermissionDenied(), errors.Unauthenticated()]
)
async def test_sealed_hides_nothing_that_was_decided_after_it(
    place: Place, error: errors.StrongBoxError
) -> None:
    place.servicer.raises, place.sealed = error, True
    with pytest.raises(type(error)):
        await place.ask()


async def test_strangers_are_counted_by_the_address_they_came_from(place: Place) -> None:
    for error in (errors.Unauthenticated(), errors.PermissionDenied(), errors.Sealed()):
        place.servicer.raises = error
        with pytest.raises(errors.StrongBoxError):
            await place.ask(x_forwarded_for="192.0.2.7")
    assert place.recorder.strangers == ["192.0.2.7", "192.0.2.7"]


async def test_health_is_told_to_the_gateway_for_each_service(place: Place) -> None:
    async with place.channel("gateway") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        names = ["", "strongbox.auth.v1.AuthService"]
        for serving in (False, True):
            await place.server.health.set_serving(serving)
            told = [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]
            assert told == [1 if serving else 2] * 2
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("who", "may"), [("operator", True), ("gateway", False), ("kv", False)])
async def test_reflection_is_for_the_operator_alone(place: Place, who: str, may: bool) -> None:
    async with place.channel(who) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        if may:
            answer = await call.read()
            assert "strongbox.auth.v1.AuthService" in str(answer)
        else:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call.read()
            assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_port_that_is_taken_is_an_error(place: Place) -> None:
    second = Server(place.identities.of("auth"), Reporter())
    with pytest.raises(RuntimeError):
        second.bind(place.address)
    await second.stop(0)
