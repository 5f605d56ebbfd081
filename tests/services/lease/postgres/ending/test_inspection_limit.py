"""The time that looking into a database may take, by what is sent; `test_pooler` asks a real server."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from psycopg2 import sql

from services.lease.postgres import pinned_settings
from services.lease.postgres.answer_deadline import deadline
from services.lease.postgres.ending import inspection
from services.lease.postgres.session import Session


class Listening:
    """As psycopg2's connection and cursor, as far as a session uses them; it keeps what is sent."""

    description, closed = (), 0

    def __init__(self) -> None:
        self.messages = list[str]()

    def cursor(self) -> Listening:
        return self

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        """As a cursor is closed."""

    def execute(self, statement: str | sql.Composable, _: object) -> None:
        self.messages.append(statement if isinstance(statement, str) else statement.as_string(None))

    def fetchall(self) -> list[Any]:
        return []


@pytest.mark.parametrize("behind_a_pooler", [False, True])
def test_no_look_into_a_database_takes_more_than_half_of_the_time_that_is_left(
    behind_a_pooler: bool,
) -> None:
    server = Listening()
    session = Session(server, 0.0)
    if behind_a_pooler:
        session._before = sql.SQL(pinned_settings.setting(pinned_settings.SETTINGS, local=True) + "; ")
    with deadline(time.monotonic() + 4):
        inspection._ask(session, 5)
    (asks,) = (number for number, text in enumerate(server.messages) if "pg_identify_object" in text)
    before = [
        *([] if behind_a_pooler else server.messages[:asks]),
        server.messages[asks].split("pg_identify")[0],
    ]
    limits = re.findall(r"statement_timeout\W+(\d+)", "; ".join(before))
    assert 1500 < int(limits[-1]) <= 2000  # the last one that is set holds
