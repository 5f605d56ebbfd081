"""The border every call crosses, in one interceptor whose wrapped handlers are made once per method.

In: the peer's certificate against the RPC's rule; the deadline; token, request id, client, idempotency key.
Out: an error of ours becomes a status with its reason; any other exception becomes `INTERNAL` and is logged
by its type and place, never by its text; one log line, one count.

Rules:
* While this process holds no keys, a call that needs a token is answered SEALED, whatever is wrong with its
  input.
* A unary call is ended `GRACE` after its deadline if its handler has not noticed; a deadline is never later
  than the client's own. A stream's deadline bounds its first decision, not its life.
* Bytes that are no message are refused like any other bad input: gRPC itself would answer UNKNOWN and quote
  its own internals.
* An answer with a secret leaves only while the cluster is proved to be unsealed (strongbox.rpc.revealing).
* For a token with a limited number of uses `spend` takes one, and the handler is run anew with it.
* No initial metadata is ever sent early: with it the gateway turns a time-out into a broken stream.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from strongbox.errors import Internal, InvalidInput, NotFound, PermissionDenied, Sealed, StrongBoxError
from strongbox.rpc import revealing
from strongbox.rpc.deadlines import Deadlines
from strongbox.rpc.error_mapping import to_answer
from strongbox.rpc.interceptors.call_log import Call, Reporter
from strongbox.rpc.interceptors.call_metadata import read_inbound
from strongbox.rpc.method_rules import Access
from strongbox.rpc.peer_identity import Peer, peer_of
from strongbox.rpc.request_context import Inbound, UseNeeded, bind
from strongbox.rpc.revealing import RequireUnsealed

GRACE = 0.1  # seconds; the pipeline's own answer at the deadline says more than ours
Behavior = Callable[[Any, Any], Any]
Context = grpc.aio.ServicerContext[Any, Any]
_log = structlog.get_logger(__name__)
if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # generic in the stubs only
    _Interceptor = grpc.aio.ServerInterceptor
    Handler = grpc.RpcMethodHandler


_KINDS: dict[tuple[bool, bool], tuple[Any, str]] = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}


class Border(_Interceptor):
    """`accesses`: every RPC that may be served, by `/service/method`; `is_sealed`: no keys here.

    `spend` takes a use of a call's token; without it tokens with limited uses are refused.
    `require_unsealed_since` lets answers with a secret out; without it none leaves.
    """

    def __init__(
        self,
        accesses: Mapping[str, Access],
        reporter: Reporter,
        is_sealed: Callable[[], bool],
        spend: Callable[[Inbound], Awaitable[Inbound]] | None = None,
        require_unsealed_since: RequireUnsealed = revealing.refuse_all,
    ) -> None:
        self._spend, self._require_unsealed_since = spend, require_unsealed_since
        self._accesses = accesses
        self._is_sealed = is_sealed
        self._reporter = reporter
        self._deadlines = Deadlines()
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler behind the border; None for a method that nobody serves."""
        known = self._wrapped.get(handler_call_details.method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        # gRPC's own convention: None is "unimplemented".
        access = self._accesses.get(handler_call_details.method)
        if handler is None or access is None:
            return cast(Handler, None)
        wrapped = self._wrapped[access.method] = self._wrap(handler, access)
        return wrapped

    def _wrap(self, handler: Handler, access: Access) -> Handler:
        kind = (bool(handler.request_streaming), bool(handler.response_streaming))
        make, name = _KINDS[kind]
        behavior: Behavior = getattr(handler, name)
        wrapped: Handler = make(
            self._guarded(_streamed(behavior) if handler.response_streaming else behavior, access),
            request_deserializer=_forgiving(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return wrapped

    def _guarded(self, behavior: Behavior, access: Access) -> Behavior:
        reporter, deadlines = self._reporter, self._deadlines

        async def guarded(request: Any, context: Context) -> Any:
            call = Call(access, time.monotonic())
            try:
                call.inbound = _admit(call, access, context)
                _require_message(request)
                handled = self._served(behavior, request, context, call.inbound)
                served = revealing.answer(access, handled, self._require_unsealed_since)
                told = await (
                    deadlines.within(call.inbound.deadline + GRACE, served) if access.unary else served
                )
            except StrongBoxError as error:
                # Without its traceback: those frames hold the request and, being ours, the refusal itself.
                refusal = Sealed() if self._hides(access, error) else error.with_traceback(None)
            except (grpc.aio.AbortError, asyncio.CancelledError):  # health's own answer; the client left
                reporter.left(call)
                raise
            except Exception:  # noqa: BLE001  whatever a defect raises, its text stays inside
                _log.exception("a handler failed", method=access.method, request_id=call.request_id)
                refusal = Internal()
            else:
                reporter.answered(call)
                return told
            retry = reporter.refused(call, refusal)
            try:
                return await context.abort(*to_answer(refusal, call.request_id, retry=retry))
            finally:
                del context, request  # gRPC's context holds what it raises, and that holds this frame

        return guarded

    async def _served(self, behavior: Behavior, request: Any, context: Context, inbound: Inbound) -> Any:
        """What the handler answers, run anew when the guard asks for a use: nothing has happened before."""
        try:
            return await behavior(request, context)
        except UseNeeded:
            if self._spend is None:
                raise
            bind(await self._spend(inbound))
            return await behavior(request, context)

    def _hides(self, access: Access, error: StrongBoxError) -> bool:
        """Whether SEALED is answered instead of `error`, which was raised before the seal was looked at."""
        early = isinstance(error, InvalidInput | NotFound)
        return early and access.token_required and self._is_sealed()


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """In place of a message that could not be read; in a stream (peers only) the handler gets it."""


def _forgiving(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if read is None:
        return None

    def forgiving(data: bytes) -> Any:
        try:
            return read(data)
        except (DecodeError, UnicodeDecodeError):
            return _Unreadable()

    return forgiving


def _require_message(request: Any) -> None:
    if isinstance(request, _Unreadable):
        raise InvalidInput("the message cannot be read")


def _admit(call: Call, access: Access, context: Context) -> Inbound:
    """Who calls, and with what. Raises PermissionDenied, InvalidInput."""
    call.peer = _require_listed(peer_of(context), access)
    inbound = read_inbound(context, call.peer, access, call.started)
    bind(inbound)
    structlog.contextvars.bind_contextvars(request_id=inbound.request_id)
    return inbound


def _require_listed(peer: Peer, access: Access) -> Peer:
    if peer.service not in access.peers:
        raise PermissionDenied(f"{peer.service} may not call this")
    return peer


def _streamed(behavior: Behavior) -> Behavior:
    """A handler that yields its answers, turned into one that writes them: so both kinds are coroutines."""
    if not inspect.isasyncgenfunction(behavior):
        return behavior

    async def written(request: Any, context: Context) -> None:
        async with aclosing(behavior(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return written
