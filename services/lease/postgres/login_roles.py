"""The roles of credentials: made, and given more time. Jobs for a thread that has a session.

Rules:
* A role is recognised by its comment `strongbox:<cluster id>:<lease id>`, which it gets in the transaction
  that makes it. A role without the expected comment is never renewed (nor dropped, see `ending.drop_roles`).
* It is made as a member of its template (`IN ROLE`): no grants on single objects, which would collide with
  each other ("tuple concurrently updated"). Without superuser we become its member in the same transaction:
  ending its sessions and taking over what it owns needs that, and later the credential could prevent it.
* VALID UNTIL is computed from PostgreSQL's own clock, and while a role lives never moves back.
* Every step can be repeated, and run twice at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from services.lease.postgres import retry_conflicts
from services.lease.postgres.errors import Rejected
from services.lease.postgres.session import Session

MARK = "strongbox:"
_NOTHING = sql.SQL("")
_STAMP = "YYYY-MM-DD HH24:MI:SS.US+00"


@dataclass(frozen=True, slots=True)
class Role:
    """One credential's role, the comment that shows that it is ours, and its template, if that is known."""

    username: str
    comment: str
    template: str = ""


def comment_of(cluster_id: str, lease_id: str) -> str:
    """The comment that marks a role as ours."""
    return f"{MARK}{cluster_id}:{lease_id}"


def issuer_of(lease_id: str) -> str:
    """The application_name under which a role is being made: 45 bytes, so it is not cut."""
    return f"sb {lease_id}"


def create(session: Session, role: Role, template: str, verifier: str, ttl_s: int, issuer: str) -> None:
    """Make the role, to log in for `ttl_s` from now. Raises Rejected: nothing was made; Lost: unknown."""
    retry_conflicts.soon(lambda: _create(session, role, template, verifier, ttl_s, issuer))


def _create(session: Session, role: Role, template: str, verifier: str, ttl_s: int, issuer: str) -> None:
    # Two round trips for all of it: with many threads each one costs a turn at the interpreter.
    name = sql.Identifier(role.username)
    mine = sql.SQL("") if session.is_superuser else joining(session, [role.username]) + sql.SQL("; ")
    with session.transaction(commit=False):
        begin = sql.SQL("BEGIN; SET LOCAL application_name = {}; ").format(sql.Literal(issuer))
        until = _from_now(session, ttl_s, begin)
        # The verifier is no password, but need not be in the server's log either.
        quiet = "SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; "
        session.ask(
            sql.SQL(
                (quiet if session.is_superuser else "")
                + "CREATE ROLE {} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                " PASSWORD {} VALID UNTIL {} IN ROLE {}; {}COMMENT ON ROLE {} IS {}; COMMIT"
            ).format(
                name, sql.Literal(verifier), sql.Literal(until), sql.Identifier(template),
                mine, name, sql.Literal(role.comment),
            )
        )  # fmt: skip


def joining(session: Session, names: list[str]) -> sql.Composed:
    """The statement that makes us a member of these roles, with their rights."""
    how = " WITH INHERIT TRUE, SET TRUE" if session.server_version >= 160000 else ""
    return sql.SQL("GRANT {} TO CURRENT_USER" + how).format(sql.SQL(", ").join(map(sql.Identifier, names)))


def renew(session: Session, role: Role, ttl_s: int) -> bool:
    """Let the role log in for `ttl_s` from now; False when there is no such role of ours.

    Never for less than before: of two renewals that overlap, the longer one may have been acknowledged.
    """
    found = find(session, [role])
    if not found:
        return False
    (oid,) = found
    try:
        retry_conflicts.soon(lambda: _renew(session, role, oid, ttl_s))
    except Rejected as error:
        if error.sqlstate == "42704":
            return False
        raise
    return True


def _renew(session: Session, role: Role, oid: int, ttl_s: int) -> None:
    # The role is locked before it is read, by an ALTER ROLE that changes nothing. Otherwise another renewal
    # could change it between reading and writing, even one that timed out and for which nobody waits any
    # more. (Not by an advisory lock: any credential could hold that of another.)
    name = sql.Identifier(role.username)
    with session.transaction(commit=False):
        # READ COMMITTED, whatever the server's default: what is read after the lock is current.
        lock = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED; ALTER ROLE {} INHERIT; ").format(name)
        until = _from_now(session, ttl_s, lock, oid)
        session.ask(sql.SQL("ALTER ROLE {} VALID UNTIL {}; COMMIT").format(name, sql.Literal(until)))


def find(session: Session, roles: list[Role]) -> dict[int, Role]:
    """Those of the roles that exist, by their oid. Raises Rejected when one exists and is not ours."""
    wanted = {role.username: role for role in roles}
    rows = session.ask(
        "SELECT oid::pg_catalog.int8, rolname,"
        " pg_catalog.shobj_description(oid, 'pg_authid'::pg_catalog.name)"
        " FROM pg_catalog.pg_roles WHERE rolname = ANY(%s::pg_catalog.name[])",
        (list(wanted),),
    )
    found = {}
    for oid, username, comment in rows:
        if comment != wanted[username].comment:
            raise Rejected(f"the role {username} exists and does not bear our mark")
        found[int(oid)] = wanted[username]
    return found


def _from_now(session: Session, ttl_s: int, before: sql.Composable = _NOTHING, oid: int = 0) -> str:
    """The time `ttl_s` from now by the server's clock, or when the role `oid` expires if that is later."""
    asking = sql.SQL(
        "SELECT coalesce(pg_catalog.to_char(pg_catalog.timezone('UTC'::pg_catalog.text, greatest("
        "(SELECT rolvaliduntil FROM pg_catalog.pg_roles WHERE oid = {}::pg_catalog.oid),"
        " pg_catalog.clock_timestamp() + {}::pg_catalog.interval)), {}::pg_catalog.text), 'infinity')"
    ).format(sql.Literal(oid), sql.Literal(f"{ttl_s} seconds"), sql.Literal(_STAMP))
    ((until,),) = session.ask(before + asking)
    return str(until)
