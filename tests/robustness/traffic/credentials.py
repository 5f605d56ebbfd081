"""Database credentials: some clients get, renew and end their own, others renew and use those of anybody.

Each answer is tried at once: what was told to live is let in by PostgreSQL, what was told to be REVOKED is
not. Some are left: the brief ones expire, the long ones have to work at the end of the run.
"""

from __future__ import annotations

import time

from tests.robustness.history import History
from tests.robustness.ledger import Credential, Ledger
from tests.robustness.postgres import DATABASE_ROLES
from tests.robustness.traffic.asking import Asked, Target, Worker

_HOLDERS = 3
_PAUSE = (0.1, 0.6)  # seconds between two steps of one client
_LEAVES_SOMETHING = 0.3  # of the credentials leave a function behind
_ENDS = 0.75  # of the credentials are ended by who got them
_REFUSALS = (400, 401, 403, 404, 409)  # 400: what is renewed is over


HOLDER = "robust-holder"  # the policy of tokens that hold a credential each


class Current:
    """The credential that somebody else renews now, and the database role that it is of."""

    credential: tuple[Credential, str] | None = None


class _Client(Worker):
    def __init__(self, target: Target, history: History, ledger: Ledger, current: Current) -> None:
        super().__init__(target, history)
        self._ledger, self._current = ledger, current

    def _rest(self) -> None:
        time.sleep(self.random.uniform(*_PAUSE))

    def _issue(self, role: str, token: str = "") -> Credential | None:
        path = f"dynamic-postgres/{role}"
        asked = Asked("made", "issue", (role,), ("IssueCredential", path), changes=True, refusals=_REFUSALS)
        begun = time.monotonic()
        answer = self.rest(asked, token or self.target.root, "GET", f"/v1/{path}")
        return self._ledger.issued(answer.body, begun) if answer.status == 200 else None

    def _renew(self, credential: Credential, role: str) -> None:
        seconds = self.random.choice((2, 5, 20, 60))
        asked = Asked(
            "made", "renew", (seconds,), ("RenewLease", f"leases/dynamic-postgres/{role}"), changes=True,
            refusals=_REFUSALS,
        )  # fmt: skip
        begun = time.monotonic()
        credential.begin_renewal(seconds)
        path = f"/v1/leases/{credential.lease}/renew"
        answer = self.rest(asked, self.target.root, "POST", path, {"increment": f"{seconds}s"})
        if answer.status == 200:
            credential.renewed(begun, float(answer.body["ttl"]))


class Holder(_Client):
    """Gets credentials and ends them."""

    def turn(self) -> None:
        """A credential's whole life."""
        role = self.random.choice(DATABASE_ROLES)
        credential = self._issue(role)
        if credential is None:
            return self._rest()
        self._ledger.check(credential)
        if self.random.random() < _LEAVES_SOMETHING:
            self._ledger.leave_behind(credential)
        self._current.credential = credential, role
        for _ in range(self.random.randrange(3)):
            self._rest()
            self._renew(credential, role)
            self._ledger.check(credential)
        self._rest()
        if self.random.random() < _ENDS:
            self._end(credential, role)
            self._ledger.check(credential)
        return self._rest()

    def _end(self, credential: Credential, role: str) -> None:
        asked = Asked("made", "end", (), ("RevokeLease", f"leases/dynamic-postgres/{role}"), changes=True)
        credential.end_asked = True
        answer = self.rest(asked, self.target.root, "POST", f"/v1/leases/{credential.lease}/revoke", {})
        credential.ended = answer.status == 200 and answer.body["state"] == "REVOKED"


class Disowned(_Client):
    """Has a token get a credential, and revokes the token: the credential goes along, sooner or later."""

    def turn(self) -> None:
        """One token's life."""
        self._rest()
        asked = Asked("made", "create", (HOLDER,), ("CreateToken", "auth/tokens"), changes=True)
        body = {"policies": [HOLDER], "ttl": "1h"}
        made = self.rest(asked, self.target.root, "POST", "/v1/tokens", body)
        credential = self._issue(DATABASE_ROLES[1], str(made.body["token"])) if made.status == 200 else None
        self._rest()
        if credential is None:
            return
        accessor = made.body["accessor"]
        credential.end_asked = True
        asked = Asked("made", "disown", (), ("RevokeToken", f"auth/tokens/{accessor}"), changes=True)
        answer = self.rest(asked, self.target.root, "DELETE", f"/v1/tokens/{accessor}")
        credential.disowned = answer.status == 200


class Renewer(_Client):
    """Renews somebody else's, at the same time as he does, by another time."""

    def turn(self) -> None:
        current = self._current.credential
        self._rest()
        if current is not None:
            self._renew(*current)
            self._ledger.check(current[0])


class User(_Client):
    """Logs in by any of those that have to work, however long ago they were issued."""

    def turn(self) -> None:
        self._rest()
        holding = self._ledger.holding()
        if holding:
            self._ledger.check(self.random.choice(holding))


def clients(target: Target, history: History, ledger: Ledger) -> list[Worker]:
    """All of them."""
    current = Current()
    holders: list[Worker] = [Holder(target, history, ledger, current) for _ in range(_HOLDERS)]
    others = [kind(target, history, ledger, current) for kind in (Renewer, User, Disowned)]
    return [*holders, *others]
