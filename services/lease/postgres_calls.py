"""The part of LeaseService that is about PostgreSQL: credentials, connections, database roles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from services.lease import connections, database_roles
from services.lease.calls import Calls
from services.lease.connections import Wanted
from services.lease.issuing import Issuer
from services.lease.messages import moment
from services.lease.passwords import Keys, SealedPassword
from services.lease.postgres import survey
from services.lease.postgres.database import Database, Login
from services.lease.postgres.failures import Lost, PostgresFailure, Unreachable
from services.lease.revoking import Revoker
from services.lease.root_rotation import Rotation
from strongbox import paths
from strongbox.access.guard import Caller
from strongbox.errors import DependencyDown, InvalidInput, LiveLeases, StrongBoxError
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.lease.v1 import lease_service_pb2_grpc as rpc
from strongbox.leases import counters, index
from strongbox.rpc.inbound import Inbound, inbound_of
from strongbox.storage.v1 import auth_records_pb2, lease_records_pb2
from strongbox.store import keyspace, paging
from strongbox.store.batch import Row
from strongbox.store.pipeline import Outcome, Work
from strongbox.store.view import View

T = TypeVar("T")
CHECKING = 2.5  # seconds to try a connection
RESERVE = 0.8  # seconds of a request kept for what follows PostgreSQL
_CLOSING = 300  # credentials that one call to delete a connection begins to end


class PostgresCalls(rpc.LeaseServiceServicer):
    """Handlers; `LeaseServicer` adds those of leases."""

    def __init__(
        self, calls: Calls, revoker: Revoker, issuer: Issuer, rotation: Rotation, keys: Keys
    ) -> None:
        self._calls, self._revoker, self._issuer = calls, revoker, issuer
        self._rotation, self._keys, self._lookup = rotation, keys, calls.guard.lookup

    async def IssueCredential(
        self, request: pb.IssueCredentialRequest, context: Any
    ) -> pb.IssueCredentialResponse:
        """Make a database role; its password is in this answer and nowhere else."""
        issued = await self._issuer.issue(inbound_of(context), request.role)
        record = issued.record
        return pb.IssueCredentialResponse(
            username=record.username,
            password=issued.password,
            lease=pb.CredentialLease(
                id=record.id,
                ttl=max(0, (record.expires_ms - issued.now_ms + 500) // 1000),
                expires_at=moment(record.expires_ms),
                renewable=record.expires_ms < record.max_expires_ms,
            ),
        )

    async def WritePostgresConnection(
        self, request: pb.WritePostgresConnectionRequest, context: Any
    ) -> pb.WritePostgresConnectionResponse:
        """Make or replace a connection, after trying it."""
        wanted, inbound = connections.parse(request), inbound_of(context)
        op, path = "WritePostgresConnection", connections.policy_path(wanted.name)
        version = ""
        # Nobody has us call a server, or wrap a key, who may not write the connection.
        if not isinstance(await self._calls.allowed(inbound, _requiring("write", path)), StrongBoxError):
            try:
                version = await _check(wanted, inbound)
            except StrongBoxError as error:
                raise await self._calls.refuse(inbound, op, path, error) from None
        password = await SealedPassword.prepare(self._keys, wanted.password)

        def decide(view: View, caller: Caller) -> lease_records_pb2.ConnectionRecord:
            caller.require("write", path)
            return connections.write(view, self._lookup, wanted, password, version)

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
            record = connections.read(view, self._lookup, name).record
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
            return connections.delete(view, self._lookup, name, revoke=request.revoke_leases)

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
        names, token = await self._names(
            inbound_of(context), "ListPostgresConnections", connections.policy_path,
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

    async def WritePostgresRole(
        self, request: pb.WritePostgresRoleRequest, context: Any
    ) -> pb.WritePostgresRoleResponse:
        """Make or replace a database role."""
        record = database_roles.parse(request)
        path = database_roles.policy_path(record.name)

        def decide(view: View, caller: Caller) -> database_roles.Record:
            caller.require("write", path)
            return database_roles.write(view, self._lookup, record)

        await self._calls.act(inbound_of(context), "WritePostgresRole", path, decide)
        return pb.WritePostgresRoleResponse(**_role_fields(record))

    async def ReadPostgresRole(
        self, request: pb.ReadPostgresRoleRequest, context: Any
    ) -> pb.ReadPostgresRoleResponse:
        """A database role, and how many credentials made from it live."""
        name = paths.require_name(request.name, "database role")
        path = database_roles.policy_path(name)

        def decide(view: View, caller: Caller) -> tuple[database_roles.Record, int]:
            caller.require("read", path)
            record = database_roles.read(view, self._lookup, name)
            return record, counters.count(view, counters.role_key(name))

        done = await self._calls.act(inbound_of(context), "ReadPostgresRole", path, decide)
        record, live = done.value
        return pb.ReadPostgresRoleResponse(**_role_fields(record), live_leases=live)

    async def DeletePostgresRole(
        self, request: pb.DeletePostgresRoleRequest, context: Any
    ) -> pb.DeletePostgresRoleResponse:
        """Remove a database role; its credentials live on."""
        name = paths.require_name(request.name, "database role")
        path = database_roles.policy_path(name)

        def decide(view: View, caller: Caller) -> None:
            caller.require("delete", path)
            database_roles.delete(view, self._lookup, name)

        await self._calls.act(inbound_of(context), "DeletePostgresRole", path, decide)
        return pb.DeletePostgresRoleResponse(name=name)

    async def ListPostgresRoles(
        self, request: pb.ListPostgresRolesRequest, context: Any
    ) -> pb.ListPostgresRolesResponse:
        """Names of the database roles that the caller may read."""
        names, token = await self._names(
            inbound_of(context), "ListPostgresRoles", database_roles.policy_path,
            keyspace.POSTGRES_ROLES, request,
        )  # fmt: skip
        return pb.ListPostgresRolesResponse(names=names, next_page_token=token)

    async def _names(
        self, inbound: Inbound, op: str, policy_path: Callable[[str], str], prefix: bytes, request: Any
    ) -> tuple[list[str], str]:
        keys, size = self._lookup.require_keys(), paging.page_size(request.page_size)
        start, end = paging.page_range(keys, prefix, request.page_token)

        def decide(view: View, caller: Caller) -> Caller:
            caller.require("read", policy_path(""))
            view.fetch(start, end, limit=size)
            return caller

        done = await self._calls.act(inbound, op, policy_path(""), decide)
        shown = [name for name in _names_in(done.rows) if _is_shown(done.value, policy_path(name))]
        return shown, paging.next_token(keys, prefix, [row.key for row in done.rows], size)

    async def _end_all_of(self, inbound: Inbound, connection: str) -> None:
        """Begin to end the credentials of a connection that is closing; the reaper goes on with the rest."""
        prefix = index.by_connection_key(connection, "")

        def fetch(view: View) -> None:
            view.fetch(prefix, keyspace.prefix_end(prefix), limit=_CLOSING, keys_only=True)

        rows = (await self._quietly(inbound, fetch)).rows
        names = [index.name_in(row.key) for row in rows]
        await self._revoker.want(names, inbound.deadline)
        await self._end_roles(inbound, names)

    async def _end_roles(self, inbound: Inbound, names: Sequence[str]) -> set[str]:
        """Take away the roles of leases that have to end, within the request; returns those that are gone."""
        left = inbound.deadline - time.monotonic() - RESERVE
        if not names or left < 0.2:
            return set()
        try:
            return await self._revoker.end(names, patience=left)
        except StrongBoxError:  # etcd; the reaper goes on
            return set()

    async def _quietly(self, inbound: Inbound, decide: Callable[[View], T]) -> Outcome[T]:
        """A step of a request that was recorded."""
        return await self._calls.pipeline.submit(Work(decide, None, inbound.deadline))


async def _check(wanted: Wanted, inbound: Inbound) -> str:
    """The server's version. Raises `InvalidInput` when it says no, `DependencyDown` when it says nothing."""
    database = Database(Login(wanted.server, wanted.username, wanted.ca), _saying(wanted.password), 1)
    left = inbound.deadline - time.monotonic() - RESERVE
    try:
        return await database.run(lambda desk: survey.check(desk.session), min(CHECKING, max(0.1, left)))
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


def _role_fields(record: database_roles.Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "connection": record.connection,
        "template_role": record.template_role,
        "default_ttl": record.default_ttl_s,
        "max_ttl": record.max_ttl_s,
        "max_leases": record.max_leases,
    }


def _names_in(rows: Sequence[Row]) -> Iterator[str]:
    """Names as they were written. Shown, not believed: whoever reads the record has its MAC checked."""
    for row in rows:
        with suppress(DecodeError):
            body = auth_records_pb2.AuthenticatedRecord.FromString(row.value).body
            # Field 1 of connections and of roles is the name, and only that is read.
            yield lease_records_pb2.NamedRecord.FromString(body).name


def _is_shown(caller: Caller, path: str) -> bool:
    decision = caller.decide("read", path)
    return decision.allowed or not decision.pattern
