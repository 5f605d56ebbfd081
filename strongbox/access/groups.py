"""Whose a token is when something is counted: its holder's, and that of the group he is one of. Pure.

    holder    who has it in hands. A login's credential where each has one of its own, for all tokens that it
              gives and their children: `secret-id/<accessor>` (an AppRole's), `pod/<uid>` or
              `service-account/<namespace>/<name>` (Kubernetes). Else the token itself: `token/<accessor>`.
    group     what its tokens are counted in (services.auth.quotas): the tree below a token that root made,
              the logins of one user or role. Who is in none is the root of its own: `token/<accessor>`.

So who makes children, or logs in again, has no more than before, and who holds one credential of a role does
not use up what the others have. Nothing secret is in these names.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Named(Protocol):
    """What is needed of a token's record."""

    @property
    def accessor(self) -> str: ...
    @property
    def holder(self) -> str: ...
    @property
    def quota(self) -> str: ...


class Groups(NamedTuple):
    """Names; `holder` is one of many in `group`, or the token itself."""

    holder: str
    group: str


def groups_of(record: Named) -> Groups:
    """Whose a token is."""
    own = f"token/{record.accessor}"
    return Groups(record.holder or own, record.quota or own)
