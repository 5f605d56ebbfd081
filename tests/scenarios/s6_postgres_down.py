"""S6: PostgreSQL is down when a credential has to end."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from tests.scenarios.world import World
from tests.support.clients import RestClient
from tests.support.database import Credential, Database
from tests.support.expect import eventually, refused

_kept: list[Credential] = []


def pending_with_pauses(world: World) -> str:
    """PENDING from the first attempt on, each pause twice the one before; requests are told 503."""
    database = Database(world.unsealed())
    _kept.clear()
    with world.rest(world.root_token) as root:
        database.prepare(root, "s6", default_ttl="4s", max_ttl="10m")
        _kept.append(Credential.of(root.call("GET", "/v1/dynamic-postgres/s6")))
        database.kill()
        with world.cluster.rest(world.root_token) as impatient:
            refused("UNAVAILABLE/DEPENDENCY_DOWN", impatient.call, "GET", "/v1/dynamic-postgres/s6")
        pauses = []
        # The third pause is seen at the third attempt, half a minute after the first.
        for number in range(1, 2 if world.short else 4):
            seen = eventually(45, _attempt, root, _kept[0].lease, number)
            pauses.append(_moment(seen["next_attempt_at"]) - time.time())
            assert seen["last_error"]
        _require_pauses(pauses)
    return f"pauses of {', '.join(f'{pause:.0f} s' for pause in pauses)}"


def _attempt(root: RestClient, lease: str, number: int) -> dict[str, Any]:
    seen = root.call("GET", f"/v1/leases/{lease}")
    assert seen["state"] == "REVOCATION_PENDING", f"the lease is {seen['state']}"
    assert seen["attempts"] >= number and seen["last_error"], f"{seen['attempts']} attempts"
    return seen


def _require_pauses(pauses: list[float]) -> None:
    """10, 20, 40 s, less what it took to look."""
    for number, pause in enumerate(pauses):
        wanted = 10 * 2**number
        assert wanted - 4 < pause <= wanted + 1, f"pause {number + 1} is {pause:.1f} s, not {wanted} s"


def by_itself(world: World) -> str:
    """PostgreSQL comes back: role gone, then REVOKED, and new credentials are issued again."""
    database = Database(world.unsealed())
    database.start()
    started = time.monotonic()
    with world.rest(world.root_token) as root:
        (credential,) = _kept
        assert credential.username in database.roles(), "the role did not outlive the failure"
        assert not database.logs_in(credential)  # PostgreSQL itself keeps the time
        eventually(60, _require_revoked, root, database, credential)
        took = time.monotonic() - started
        again = Credential.of(eventually(10, root.call, "GET", "/v1/dynamic-postgres/s6"))
        assert database.logs_in(again)
        root.call("POST", f"/v1/leases/{again.lease}/revoke", {})
        assert not database.roles() & {credential.username, again.username}
    return f"{took:.0f} s after its return"


def _require_revoked(root: RestClient, database: Database, credential: Credential) -> None:
    state = root.call("GET", f"/v1/leases/{credential.lease}")["state"]
    assert state == "REVOKED", f"the lease is {state}"
    assert credential.username not in database.roles(), "REVOKED, and its role is there"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
