"""What a credential leaves behind goes to the user of the connection, who may do more than it could."""

import sys
from typing import Any


def _change() -> None:
    from psycopg2 import sql

    from services.lease.postgres import removal

    disown = removal._disown

    def handed_up(session: Any, enter: Any, databases: list[str], names: list[str], *more: Any) -> None:
        for database in databases:
            room = session if database == session.database else enter(database)
            roles = sql.SQL(", ").join(map(sql.Identifier, names))
            room.ask(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(roles))
        disown(session, enter, databases, names, *more)

    removal._disown = handed_up


if "services.lease" in sys.orig_argv:
    _change()
