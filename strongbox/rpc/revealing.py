"""The last check that every answer with a secret passes: none leaves after `seal` has answered.

* Which answers these are is said in the protos: `reveals` in the RPC's rule, wherever a field of the answer
  is marked `debug_redact` (tests/architecture/test_revealing.py compares the two).
* The answer leaves only if its proof is new enough (`KeyClient.require_unsealed_since`,
  `Custody.require_unsealed_since`). An answer that rests on no proof is a defect, and does not leave.
* `Sealed` and `NoQuorum` promise that nothing was done. Where asking again would do it twice (the rule says
  not `retryable`) the refusal is `UnknownOutcome`: a token or credential may have been made. Nobody ever sees
  it, and it expires; a root token never does, and is revoked by its accessor (ADR 32).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from strongbox import unsealed_proof
from strongbox.errors import Internal, Unavailable, UnknownOutcome
from strongbox.rpc.method_rules import Access

T = TypeVar("T")
# Raises Sealed or NoQuorum unless a proof of this moment (monotonic seconds) still lets an answer leave.
RequireUnsealed = Callable[[float], None]
WITHHELD = "the cluster was sealed meanwhile, or may have been: what was made is not handed out"
_log = structlog.get_logger(__name__)


def refuse_all(_: float) -> None:
    """For a process that knows nothing of the seal: no secret leaves it. Raises `Internal`."""
    raise Internal


async def answer(access: Access, answering: Awaitable[T], require_unsealed_since: RequireUnsealed) -> T:
    """What the handler answers, if it may still leave: nothing is awaited between the check and the return.

    Raises what the handler raises; for an RPC that reveals also `Sealed`, `NoQuorum`, `UnknownOutcome`, and
    `Internal` when no proof was noted.
    """
    if not access.reveals:
        return await answering
    proved = unsealed_proof.begin()
    told = await answering
    if proved.since is None:
        _log.error("an answer that holds a secret rests on no proof", method=access.method)
        raise Internal
    try:
        require_unsealed_since(proved.since)
    except Unavailable:
        if access.retryable:
            raise
        raise UnknownOutcome(WITHHELD) from None
    return told
