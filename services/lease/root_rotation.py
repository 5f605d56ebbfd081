"""Changing the password of a connection's user: written down, told to PostgreSQL, settled.

A process that dies between these steps leaves both passwords in the record; every session tries both, and the
next call to change the password finishes what was begun.
"""

from __future__ import annotations

import time

from services.lease import connections
from services.lease.calls import Calls
from services.lease.databases import Databases, Stored
from services.lease.passwords import Keys, SealedPassword, open_passwords
from services.lease.postgres import scram, survey
from services.lease.postgres.database import Desk
from services.lease.postgres.failures import Lost, PostgresFailure
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, UnknownOutcome
from strongbox.rpc.inbound import Inbound
from strongbox.store.view import View

OP, BEGIN_OP = "RotatePostgresRoot", "BeginPostgresRotation"
PATIENCE = 2.5  # seconds for PostgreSQL
RESERVE = 0.8


class Rotation:
    """Changes passwords."""

    def __init__(self, calls: Calls, databases: Databases, keys: Keys) -> None:
        self._calls, self._databases, self._keys = calls, databases, keys
        self._lookup = calls.guard.lookup

    async def rotate(self, inbound: Inbound, name: str) -> int:
        """Give the connection's user a new password; returns the moment (ms). Raises StrongBoxError."""
        path = connections.policy_path(name)
        password = await SealedPassword.prepare(self._keys, scram.new_password())

        def begin(view: View, caller: Caller) -> connections.Record:
            caller.require("sudo", path)
            return connections.begin_rotation(view, self._lookup, name, password)

        begun = await self._calls.act(inbound, BEGIN_OP, path, begin)
        stored = Stored(begun.value, begun.revision)
        try:
            await self._tell(stored, inbound.deadline)
        except Lost as error:
            # Both are kept; who asks again finishes it.
            await self._calls.refuse(inbound, OP, path, UnknownOutcome(str(error)))
            raise UnknownOutcome(str(error)) from None
        except PostgresFailure as error:
            await self._calls.quietly(
                lambda view: connections.settle_rotation(
                    view, self._lookup, name, stored.record.next_version, holds=False
                ),
                1.0,
            )
            raise await self._calls.refuse(inbound, OP, path, DependencyDown(str(error))) from None

        def settle(view: View, caller: Caller) -> int:
            caller.require("sudo", path)
            number = stored.record.next_version
            return connections.settle_rotation(view, self._lookup, name, number, holds=True)

        return (await self._calls.act(inbound, OP, path, settle)).value

    async def _tell(self, stored: Stored, deadline: float) -> None:
        password = (await open_passwords(self._keys, stored.record))[-1]

        def job(desk: Desk) -> None:
            survey.change_password(desk.session, scram.verifier(password))

        left = deadline - time.monotonic() - RESERVE
        await self._databases.at(stored).run(job, min(PATIENCE, max(0.1, left)))
