"""Changing the password of a connection's user: written to etcd, set in PostgreSQL, tried, settled.

Neither password is dropped before a login with the other one has succeeded. That a statement succeeded does
not say whose password it changed, nor who checks it (a pooler may keep passwords of its own). So:

    the new one is taken          the old one is forgotten
    it is not, the old one is     the new one is forgotten; the change is undone first if it was made
    nobody can tell               both are kept, every session tries both, and the next call finishes it
"""

from __future__ import annotations

import time

from services.lease.connections import connections
from services.lease.connections.connection_passwords import Keys, SealedPassword, open_passwords
from services.lease.connections.server_cache import Databases, Stored
from services.lease.guarded_call import Calls
from services.lease.postgres import catalog, scram
from services.lease.postgres.connection_pool import Desk
from services.lease.postgres.errors import LoginRefused, PostgresFailure, Rejected
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, UnknownOutcome
from strongbox.rpc.request_context import Inbound
from strongbox.store.decisions.view import View

OP, BEGIN_OP = "RotatePostgresRoot", "BeginPostgresRotation"
PATIENCE = 2.5  # seconds for PostgreSQL
RESERVE = 0.8


class Rotation:
    """Changes the passwords of connections' users."""

    def __init__(self, calls: Calls, databases: Databases, keys: Keys) -> None:
        self._calls, self._databases, self._keys = calls, databases, keys
        self._lookup = calls.guard.lookup

    async def rotate(self, inbound: Inbound, name: str) -> int:
        """Give the connection's user a new password; returns the moment (ms). Raises StrongBoxError."""
        path = connections.policy_path(name)

        def may(view: View, caller: Caller) -> None:
            caller.require("sudo", path)
            connections.read(view, self._lookup, name)

        # A key is wrapped only for a caller that may change the password.
        denied = await self._calls.allowed(inbound, may)
        if denied is not None:
            raise await self._calls.refuse(inbound, BEGIN_OP, path, denied)
        password = await SealedPassword.prepare(self._keys, scram.new_password())

        def begin(view: View, caller: Caller) -> connections.Record:
            caller.require("sudo", path)
            return connections.begin_rotation(view, self._lookup, name, password)

        begun = await self._calls.act(inbound, BEGIN_OP, path, begin)
        stored = Stored(begun.value, begun.revision)
        number = stored.record.next_version
        try:
            why = await self._tell(stored, inbound.deadline)
        except PostgresFailure as error:  # both are kept; the next call finishes it
            await self._calls.refuse(inbound, OP, path, UnknownOutcome(str(error)))
            raise UnknownOutcome(str(error)) from None
        if why:
            await self._calls.quietly(
                lambda view: connections.settle_rotation(view, self._lookup, name, number, holds=False), 1.0
            )
            raise await self._calls.refuse(inbound, OP, path, DependencyDown(why)) from None

        def settle(view: View, caller: Caller) -> int:
            caller.require("sudo", path)
            return connections.settle_rotation(view, self._lookup, name, number, holds=True)

        return (await self._calls.act(inbound, OP, path, settle)).value

    async def _tell(self, stored: Stored, deadline: float) -> str:
        """Empty: a login with the new password succeeded; else why the old one stays.

        Raises PostgresFailure.
        """
        old, new = await open_passwords(self._keys, stored.record)
        left = deadline - time.monotonic() - RESERVE
        patience = min(PATIENCE, max(0.1, left))
        return await self._databases.at(stored).run(lambda desk: changed(desk, old, new), patience)


def changed(desk: Desk, old: str, new: str) -> str:
    """Change the password; returns "", or why the old one stays valid. Raises when nobody can tell."""
    why = ""
    try:
        catalog.change_password(desk.session, desk.user, scram.verifier(new))
    except Rejected as error:
        why = str(error)
    try:
        desk.require_taken(new)
        return ""  # also when it was refused now: then an earlier call has changed it
    except LoginRefused as error:
        if not why:
            catalog.change_password(desk.session, desk.user, scram.verifier(old))
            why = f"the new password is not taken where we log in, so it was changed back: {error}"
    desk.require_taken(old)
    return why
