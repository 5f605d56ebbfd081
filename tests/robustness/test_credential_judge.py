"""The judge of credentials sees what is planted: roles in a real server, leases and answers by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.lease import credential_lease
from tests.robustness import credential_judge
from tests.robustness.credential_judge import Seen
from tests.robustness.ledger import Ledger
from tests.robustness.postgres import AWAY, IN, OUT, let_in
from tests.support.postgres import PostgresServer

CLUSTER = "judged"
_FIRST, _SECOND = "p" + "1" * 40, "p" + "2" * 40


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """With a role of one lease, and one that another cluster made."""
    _plant(postgres, "sb_judged1", _FIRST)
    _plant(postgres, "sb_judged2", _FIRST, "another")
    yield postgres
    for name in [name for name in postgres.roles() if name.startswith("sb_judged")]:
        postgres.ask(f"DROP ROLE {name}")


def _plant(server: PostgresServer, name: str, lease: str, cluster: str = CLUSTER) -> None:
    server.ask(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
    server.ask(f"COMMENT ON ROLE {name} IS 'strongbox:{cluster}:{lease}'")


def _leases(**states: Any) -> dict[str, credential_lease.Record]:
    by_id = {"first": _FIRST, "second": _SECOND}
    return {
        by_id[name]: credential_lease.Record(id=by_id[name], state=state) for name, state in states.items()
    }


def _seen(server: PostgresServer, before: Any, after: Any) -> Seen:
    return Seen(CLUSTER, before, server.roles(), after)


@pytest.mark.parametrize(
    "state",
    [credential_lease.INTENT, credential_lease.ACTIVE, credential_lease.PENDING, credential_lease.ABANDONED],
)
def test_a_role_with_a_lease_an_intent_or_a_pending_revocation_is_right(
    server: PostgresServer, state: Any
) -> None:
    leases = _leases(first=state)
    assert list(credential_judge.violations(_seen(server, leases, leases))) == []


def test_a_stray_role_is_found(server: PostgresServer) -> None:
    _plant(server, "sb_judged3", _SECOND)
    leases = _leases(first=credential_lease.ACTIVE)
    (found,) = credential_judge.violations(_seen(server, leases, leases))
    assert "sb_judged3 has no lease" in found


def test_a_revoked_lease_with_a_living_role_is_found(server: PostgresServer) -> None:
    leases = _leases(first=credential_lease.REVOKED)
    (found,) = credential_judge.violations(_seen(server, leases, leases))
    assert "is REVOKED" in found
    # What was revoked while the roles were being read may have been there before.
    assert (
        list(credential_judge.violations(_seen(server, _leases(first=credential_lease.ACTIVE), leases))) == []
    )


def test_what_has_not_come_to_its_end_is_found(server: PostgresServer) -> None:
    def unsettled(**states: Any) -> list[str]:
        return list(credential_judge.unsettled(_seen(server, {}, _leases(**states))))

    assert unsettled(first=credential_lease.ACTIVE, second=credential_lease.REVOKED) == []
    assert "ACTIVE and has no role" in unsettled(second=credential_lease.ACTIVE)[0]
    for state in (credential_lease.INTENT, credential_lease.PENDING, credential_lease.ABANDONED):
        assert len(unsettled(first=state)) == 1
    left = credential_judge.settle(lambda: _seen(server, {}, _leases(second=credential_lease.PENDING)), 0.0)
    assert len(left) == 2  # and the first role has no lease


def test_what_the_reconciler_had_to_mend_is_found() -> None:
    lines = [json.dumps({"op": op, "path": "x"}).encode() for op in ("IssueCredential", "DropOrphanRole")]
    assert len(list(credential_judge.mended(lines))) == 1


def test_who_is_let_in_is_told_from_a_server_that_is_away(server: PostgresServer) -> None:
    def told(user: str, password: str) -> str:
        return let_in(lambda: server.open(user, password))

    assert told("sb_judged1", "right") == IN
    assert told("sb_judged1", "wrong") == told("sb_nobody", "right") == OUT
    server.ask("ALTER ROLE sb_judged1 VALID UNTIL 'epoch'")
    assert told("sb_judged1", "right") == OUT
    server.ask("ALTER ROLE sb_judged1 VALID UNTIL 'infinity' NOLOGIN")
    assert told("sb_judged1", "right") == OUT
    with PostgresServer() as other:
        other.kill()
        assert let_in(lambda: other.open("sb_judged1", "right")) == AWAY


class _Door:
    """Says what it is told to say."""

    says = IN

    def login(self, username: str, password: str) -> str:
        del username, password
        return self.says


@pytest.mark.parametrize(
    ("says", "changes", "violations"),
    [
        (IN, {}, 0),
        (OUT, {}, 1),
        (AWAY, {}, 0),
        (OUT, {"end_asked": True}, 0),
        (IN, {"end_asked": True}, 0),
        (IN, {"end_asked": True, "ended": True}, 1),
        (OUT, {"end_asked": True, "ended": True}, 0),
        (OUT, {"holds_until": 0.0}, 0),
        (IN, {"holds_until": 0.0, "over_at": 0.0}, 1),
    ],
)
def test_answers_are_held_against_logins(says: str, changes: dict[str, Any], violations: int) -> None:
    door = _Door()
    ledger, door.says = Ledger(door), says
    answer = {"username": "sb_x", "password": "secret", "lease": {"id": _FIRST, "ttl": 60}}
    credential = ledger.issued(answer, time.monotonic())
    for name, value in changes.items():
        setattr(credential, name, value)
    ledger.check(credential)
    assert len(ledger.violations) == violations
    assert "secret" not in "".join(ledger.violations)


NOW = -1.0  # stands for the moment of the test


@pytest.mark.parametrize(
    ("says", "set_by", "changes", "violations"),
    [
        (OUT, 120.0, {}, 0),  # over by PostgreSQL's clock, and by no other
        (OUT, -120.0, {}, 1),
        (IN, -120.0, {"holds_until": 0.0, "over_at": NOW}, 0),
        (IN, 120.0, {"holds_until": 0.0, "over_at": NOW}, 1),
    ],
)
def test_a_wall_clock_that_was_set_meanwhile_is_nobodys_fault(
    says: str, set_by: float, changes: dict[str, Any], violations: int
) -> None:
    door = _Door()
    ledger, door.says = Ledger(door), says
    answer = {"username": "sb_x", "password": "secret", "lease": {"id": _FIRST, "ttl": 60}}
    credential = ledger.issued(answer, time.monotonic())
    credential.wall_ahead -= set_by
    for name, value in changes.items():
        setattr(credential, name, time.monotonic() if value == NOW else value)
    assert len(ledger.holding()) == (0 if set_by > 0 or changes else 1)
    ledger.check(credential)
    assert len(ledger.violations) == violations


def test_a_renewal_is_held_against_logins_only_when_it_is_answered() -> None:
    door = _Door()
    ledger = Ledger(door)
    answer = {"username": "sb_x", "password": "secret", "lease": {"id": _FIRST, "ttl": 0}}
    credential = ledger.issued(answer, time.monotonic() - 10)
    credential.over_at = time.monotonic() - 5
    credential.begin_renewal(60)
    for door.says in (IN, OUT):
        ledger.check(credential)
    assert ledger.violations == []
    credential.renewed(time.monotonic(), 60)
    ledger.check(credential)
    assert len(ledger.violations) == 1
