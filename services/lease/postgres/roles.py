"""The roles of credentials: made, given more time, and taken away. Jobs for a thread that has a session.

Rules:
* A role is told from others by its comment `strongbox:<cluster id>:<lease id>`, which it gets in the
  transaction that makes it. What does not bear the expected comment is never touched.
* It is made as a member of its template (`IN ROLE`): no grants on single objects, which would collide with
  each other ("tuple concurrently updated").
* VALID UNTIL is computed from PostgreSQL's own clock, and while a role lives never moves back.
* Everything can be repeated, and be under way twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from services.lease.postgres import retrying
from services.lease.postgres.failures import Rejected
from services.lease.postgres.session import Session

_NOTHING = sql.SQL("")
_STAMP = "YYYY-MM-DD HH24:MI:SS.US+00"
_RENEWING = 0x5342 << 32  # the advisory locks of renewals: this and the role's oid


@dataclass(frozen=True, slots=True)
class Role:
    """One credential's role, and the comment that shows that it is ours."""

    username: str
    comment: str


def comment_of(cluster_id: str, lease_id: str) -> str:
    """What a role says of itself."""
    return f"strongbox:{cluster_id}:{lease_id}"


def issuer_of(lease_id: str) -> str:
    """The application_name under which a role is being made: 45 bytes, so it is not cut."""
    return f"sb {lease_id}"


def create(session: Session, role: Role, template: str, verifier: str, ttl_s: int, issuer: str) -> None:
    """Make the role, to log in for `ttl_s` from now. Raises Rejected: nothing was made; Lost: unknown."""
    retrying.soon(lambda: _create(session, role, template, verifier, ttl_s, issuer))


def _create(session: Session, role: Role, template: str, verifier: str, ttl_s: int, issuer: str) -> None:
    # Two round trips for all of it: with many threads each one costs a turn at the interpreter.
    name = sql.Identifier(role.username)
    with session.transaction(commit=False):
        begin = sql.SQL("BEGIN; SET LOCAL application_name = {}; ").format(sql.Literal(issuer))
        until = _from_now(session, ttl_s, begin)
        # The verifier is no password, but needs not be in the server's log either.
        quiet = "SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; "
        session.ask(
            sql.SQL(
                (quiet if session.is_superuser else "")
                + "CREATE ROLE {} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                " PASSWORD {} VALID UNTIL {} IN ROLE {}; COMMENT ON ROLE {} IS {}; COMMIT"
            ).format(
                name, sql.Literal(verifier), sql.Literal(until), sql.Identifier(template),
                name, sql.Literal(role.comment),
            )
        )  # fmt: skip


def renew(session: Session, role: Role, ttl_s: int) -> bool:
    """Have the role's password be taken for `ttl_s` from now; False when there is no such role of ours.

    Never for less than before: of two renewals that overlap, the longer one may have been acknowledged.
    """
    found = find(session, [role])
    if not found:
        return False
    (oid,) = found
    try:
        retrying.soon(lambda: _renew(session, role, oid, ttl_s))
    except Rejected as error:
        if error.sqlstate == "42704":
            return False
        raise
    return True


def _renew(session: Session, role: Role, oid: int, ttl_s: int) -> None:
    # Under a lock, since what is read may be changed before it is written: by another renewal, or by one
    # that its server was too slow for and that nobody waits for any more.
    with session.transaction(commit=False):
        # READ COMMITTED: what is read behind the lock is as it is then, whatever the server's default.
        lock = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({}); ")
        until = _from_now(session, ttl_s, lock.format(sql.Literal(_RENEWING | oid)), oid)
        session.ask(
            sql.SQL("ALTER ROLE {} VALID UNTIL {}; COMMIT").format(
                sql.Identifier(role.username), sql.Literal(until)
            )
        )


def find(session: Session, roles: list[Role]) -> dict[int, Role]:
    """Those of the roles that exist, by their oid. Raises Rejected when one exists and is not ours."""
    wanted = {role.username: role for role in roles}
    rows = session.ask(
        "SELECT oid::bigint, rolname, shobj_description(oid, 'pg_authid') FROM pg_roles"
        " WHERE rolname = ANY(%s)",
        (list(wanted),),
    )
    found = {}
    for oid, username, comment in rows:
        if comment != wanted[username].comment:
            raise Rejected(f"the role {username} exists and does not bear our mark")
        found[int(oid)] = wanted[username]
    return found


def _from_now(session: Session, ttl_s: int, before: sql.Composable = _NOTHING, oid: int = 0) -> str:
    """When it is `ttl_s` from now by the server's clock, or later: as long as the role of `oid` is valid."""
    asking = sql.SQL(
        "SELECT coalesce(to_char(greatest((SELECT rolvaliduntil FROM pg_roles WHERE oid = {}),"
        " clock_timestamp() + make_interval(secs => {})) AT TIME ZONE 'UTC', {}), 'infinity')"
    ).format(sql.Literal(oid), sql.Literal(ttl_s), sql.Literal(_STAMP))
    ((until,),) = session.ask(before + asking)
    return str(until)
