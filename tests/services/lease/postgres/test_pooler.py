"""A pooler that takes no startup options, or leaves them out; and a server without a free session."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.lease.postgres import dsn, pinned_settings, scram
from services.lease.postgres.connection_pool import Database, Login
from services.lease.postgres.ending import inspection
from services.lease.postgres.errors import Full
from tests.services.lease.postgres.test_jobs import creating, removing, role_named
from tests.support.postgres import PASSWORD, PostgresServer

_REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


class Pooler:
    """As far as a client sees pgbouncer when it connects: `refuses` the options, or leaves them out."""

    def __init__(self, port: int, *, refuses: bool) -> None:
        self._to, self._refuses = port, refuses
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            (size,) = struct.unpack("!I", client.recv(4, socket.MSG_WAITALL))
            body = client.recv(size - 4, socket.MSG_WAITALL)
            words = body[4:].rstrip(b"\0").split(b"\0")
            said = dict(zip(words[::2], words[1::2], strict=True))
            if said.pop(b"options", None) is not None and self._refuses:
                client.sendall(b"E" + struct.pack("!I", len(_REFUSAL) + 4) + _REFUSAL)
                return
            flat = b"".join(name + b"\0" + value + b"\0" for name, value in said.items()) + b"\0"
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                server.sendall(struct.pack("!I", len(flat) + 8) + body[:4] + flat)
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def behind(server: PostgresServer, *, refuses: bool) -> Iterator[Database]:
    async def passwords() -> list[str]:
        return [PASSWORD]

    pooler = Pooler(server.port, refuses=refuses)
    url = f"postgresql://127.0.0.1:{pooler.port}/postgres?sslmode=disable"
    database = Database(Login(dsn.parse_server(url), "postgres"), passwords)
    yield database
    database.close()
    pooler.close()


@pytest.mark.parametrize("refuses", [True, False])
async def test_behind_a_pooler_each_statement_is_sent_with_what_it_needs(
    postgres: PostgresServer, refuses: bool
) -> None:
    role = role_named()
    with behind(postgres, refuses=refuses) as database:
        for _ in range(2):  # also when it has lost what an earlier statement set
            await database.run(lambda desk: desk.session.ask("RESET ALL", bare=True), 5)
            seen = await database.run(lambda desk: desk.session.ask("SHOW search_path"), 5)
            assert seen == [(pinned_settings.SETTINGS["search_path"],)]
        left = await database.run(lambda desk: desk.session.ask("SHOW search_path", bare=True), 5)
        assert left != seen  # nothing of it stays in a session that others get
        await database.run(creating(role, scram.new_password(), template="pg_monitor"), 5)
        assert role.username in postgres.roles()
        assert await database.run(removing(role), 5) == {}


async def test_behind_a_pooler_an_inspections_own_limit_holds(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "SELECT 'setting', pg_catalog.current_setting('statement_timeout'), true LIMIT %s"
    monkeypatch.setattr(inspection, "_OWNED", limit)
    with behind(postgres, refuses=True) as database:
        ((_, said, _),) = await database.run(lambda desk: inspection._ask(desk.session, 5), 3.9)
    assert said.endswith("ms")
    assert 0 < int(said.removesuffix("ms")) <= 1950


async def test_a_user_without_a_free_session_is_told_so_and_its_own_jobs_share(
    postgres: PostgresServer,
) -> None:
    postgres.ask("CREATE ROLE narrow LOGIN CREATEROLE CONNECTION LIMIT 1 PASSWORD 'narrow'")

    async def passwords() -> list[str]:
        return ["narrow"]

    login = Login(dsn.parse_server(postgres.dsn), "narrow")
    first, second = Database(login, passwords), Database(login, passwords)
    done = await asyncio.gather(
        *(first.run(lambda desk: desk.session.ask("SELECT 1"), 10) for _ in range(12))
    )
    assert done == [[(1,)]] * 12
    with pytest.raises(Full, match="no connection free"):
        await second.run(lambda desk: None, 1.5)
    first.close()
    second.close()
