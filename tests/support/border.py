"""A handler's answer as the border lets it out, for services that tests call without a server."""

from __future__ import annotations

from typing import Any, cast

from strongbox.rpc import method_rules, revealing
from tests.support.surface import rpc_named


async def answered(
    servicer: Any, name: str, request: Any, require_unsealed_since: revealing.RequireUnsealed
) -> Any:
    """What `servicer` answers to the RPC, if it may leave. Raises as strongbox.rpc.revealing."""
    rpc = rpc_named(name)
    access = method_rules.table((rpc.service,))[rpc.full_name]
    handling = getattr(servicer, name)(request, cast("Any", None))
    return await revealing.answer(access, handling, require_unsealed_since)
