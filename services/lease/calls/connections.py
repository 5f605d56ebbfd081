"""The part of LeaseService that is about connections: the servers that credentials are made on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from services.lease.calls.list_names import list_names
from services.lease.connections import connections
from services.lease.connections.connection_passwords import Keys, SealedPassword
from services.lease.connections.connections import Wanted
from services.lease.connections.rotate_root import Rotation
from services.lease.connections.server_cache import Databases, Stored
from services.lease.guarded_call import RESERVE, Calls
from services.lease.leases.revoke import Revoker
from services.lease.messages import moment, owned_to_proto
from services.lease.postgres import catalog
from services.lease.postgres.connection_pool import Database, Login
from services.lease.postgres.ending import inspection
from services.lease.postgres.errors import Lost, PostgresFailure, Unreachable
from strongbox import paths
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, InvalidInput, LiveLeases, StrongBoxError
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1 import lease_service_pb2_grpc as rpc
from strongbox.lease_records import counters, index
from strongbox.rpc.request_context import Inbound, inbound_of
from strongbox.storage.v1 import lease_records_pb2
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

CHECKING = 2.5  # seconds to try a connection
_CLOSING = 300  # credentials that one call to delete a connection begins to end


class ConnectionCalls(rpc.LeaseServiceServicer):
    """Handlers; `LeaseServicer` puts them together with the others."""

    _calls: Calls
    _revoker: Revoker
    _rotation: Rotation
    _databases: Databases
    _keys: Keys

    async def WritePostgresConnection(
        self, request: pb.WritePostgresConnectionRequest, context: Any
    ) -> pb.WritePostgresConnectionResponse:
        """Make or replace a connection, after trying it."""
        wanted, inbound = connections.parse(request), inbound_of(context)
        op, path = "WritePostgresConnection", connections.policy_path(wanted.name)
        # A server is called, and a key wrapped, only for a caller that may write the connection.
        denied = await self._calls.allowed(inbound, _requiring("write", path))
        if denied is not None:
            raise await self._calls.refuse(inbound, op, path, denied)
        try:
            version = await _check(wanted, inbound)
        except StrongBoxError as error:
            raise await self._calls.refuse(inbound, op, path, error) from None
        password = await SealedPassword.prepare(self._keys, wanted.password)

        def decide(view: View, caller: Caller) -> lease_records_pb2.ConnectionRecord:
            caller.require("write", path)
            return connections.write(view, self._calls.guard.lookup, wanted, password, version)

        record = (await self._calls.act(inbound, op, path, decide)).value
        return pb.WritePostgresConnectionResponse(
            name=record.name, dsn=record.dsn, username=record.username, server_version=record.server_version
        )

    async def ReadPostgresConnection(
        self, request: pb.ReadPostgresConnectionRequest, context: Any
    ) -> pb.ReadPostgresConnectionResponse:
        """A connection, without its password."""
        name = paths.require_name(request.name, "connection")
        path = connections.policy_path(name)

        def decide(view: View, caller: Caller) -> tuple[lease_records_pb2.ConnectionRecord, int]:
            caller.require("read", path)
            record = connections.read(view, self._calls.guard.lookup, name).record
            return record, counters.connection_count(view, name)

        done = await self._calls.act(inbound_of(context), "ReadPostgresConnection", path, decide)
        record, live = done.value
        return pb.ReadPostgresConnectionResponse(
            name=record.name,
            dsn=record.dsn,
            username=record.username,
            ca=record.ca,
            server_version=record.server_version,
            created_at=moment(record.created_ms),
            rotated_at=moment(record.rotated_ms) if record.rotated_ms else None,
            live_leases=live,
        )

    async def DeletePostgresConnection(
        self, request: pb.DeletePostgresConnectionRequest, context: Any
    ) -> pb.DeletePostgresConnectionResponse:
        """Remove a connection; with `revoke_leases` end its credentials first, as far as time allows."""
        name, inbound = paths.require_name(request.name, "connection"), inbound_of(context)
        op, path = "DeletePostgresConnection", connections.policy_path(name)

        def decide(view: View, caller: Caller) -> int:
            caller.require("delete", path)
            return connections.delete(view, self._calls.guard.lookup, name, revoke=request.revoke_leases)

        live = (await self._calls.act(inbound, op, path, decide)).value
        if live:
            await self._end_all_of(inbound, name)
            live = (await self._calls.act(inbound, op, path, decide)).value
        if live:
            raise LiveLeases(f"{live} credentials are still being revoked; ask again", leases=str(live))
        return pb.DeletePostgresConnectionResponse(name=name)

    async def ListPostgresConnections(
        self, request: pb.ListPostgresConnectionsRequest, context: Any
    ) -> pb.ListPostgresConnectionsResponse:
        """Names of the connections that the caller may read."""
        names, token = await list_names(
            self._calls, inbound_of(context), "ListPostgresConnections", connections.policy_path,
            keyspace.POSTGRES_CONNECTIONS, request,
        )  # fmt: skip
        return pb.ListPostgresConnectionsResponse(names=names, next_page_token=token)

    async def RotatePostgresRoot(
        self, request: pb.RotatePostgresRootRequest, context: Any
    ) -> pb.RotatePostgresRootResponse:
        """Give the connection's user a password that nobody else knows."""
        name = paths.require_name(request.name, "connection")
        at_ms = await self._rotation.rotate(inbound_of(context), name)
        return pb.RotatePostgresRootResponse(name=name, rotated_at=moment(at_ms))

    async def InspectPostgresConnection(
        self, request: pb.InspectPostgresConnectionRequest, context: Any
    ) -> pb.InspectPostgresConnectionResponse:
        """What the connection's user owns in the databases that it may enter; changes nothing."""
        name, inbound = paths.require_name(request.name, "connection"), inbound_of(context)
        op, path = "InspectPostgresConnection", connections.policy_path(name)

        def decide(view: View, caller: Caller) -> Stored:
            caller.require("sudo", path)
            return connections.read(view, self._calls.guard.lookup, name)

        stored = await self._calls.allowed(inbound, decide)
        if isinstance(stored, StrongBoxError):
            raise await self._calls.refuse(inbound, op, path, stored)
        try:
            found = await self._inspect(stored, inbound)
        except StrongBoxError as error:
            raise await self._calls.refuse(inbound, op, path, error) from None
        await self._calls.act(inbound, op, path, decide)
        return pb.InspectPostgresConnectionResponse(
            name=name,
            username=stored.record.username,
            objects=map(owned_to_proto, found.objects),
            more=found.more,
            databases_left_out=found.left_out,
        )

    async def _inspect(self, stored: Stored, inbound: Inbound) -> inspection.Found:
        """Raises `DependencyDown` when PostgreSQL does not answer."""
        left = inbound.deadline - time.monotonic() - RESERVE
        job = self._databases.at(stored).run(
            lambda desk: inspection.owned(desk.session, desk.enter), max(0.1, left)
        )
        try:
            return await job
        except PostgresFailure as error:
            raise DependencyDown(str(error)) from None

    async def _end_all_of(self, inbound: Inbound, connection: str) -> None:
        """Begin to end the credentials of a connection that is closing; the reaper goes on with the rest."""
        prefix = index.by_connection_key(connection, "")

        def fetch(view: View, caller: Caller) -> None:
            caller.require("delete", connections.policy_path(connection))
            view.fetch(prefix, keyspace.prefix_end(prefix), limit=_CLOSING, keys_only=True)

        rows = (await self._calls.after(inbound, fetch)).rows
        names = [index.name_in(row.key) for row in rows]
        await self._revoker.want(names, inbound.deadline)
        await self._revoker.end_within(inbound.deadline, names)


async def _check(wanted: Wanted, inbound: Inbound) -> str:
    """The server's version. Raises `InvalidInput` when it refuses, `DependencyDown` without an answer."""
    database = Database(Login(wanted.server, wanted.username, wanted.ca), _saying(wanted.password), 1)
    left = inbound.deadline - time.monotonic() - RESERVE
    try:
        return await database.run(lambda desk: catalog.check(desk.session), min(CHECKING, max(0.1, left)))
    except (Unreachable, Lost) as error:
        raise DependencyDown(str(error)) from None
    except PostgresFailure as error:
        raise InvalidInput(str(error)) from None
    finally:
        database.close()


def _saying(password: str) -> Callable[[], Any]:
    async def passwords() -> list[str]:
        return [password]

    return passwords


def _requiring(capability: str, path: str) -> Callable[[View, Caller], None]:
    def decide(view: View, caller: Caller) -> None:
        del view
        caller.require(capability, path)

    return decide
