"""Under which holder and which group a token is counted. Pure.

    holder    who uses it. Where each client logs in with a credential of its own, that credential, for all
              tokens that it gives and their children: `secret-id/<accessor>` (an AppRole's), `pod/<uid>` or
              `service-account/<namespace>/<name>` (Kubernetes). Else the token itself: `token/<accessor>`.
    group     what its tokens are counted in (services.auth.quotas): the tree below a token that root made,
              or the logins of one user or role. A token in neither is a group by itself: `token/<accessor>`.

So making children or logging in again gives nobody more, and the holder of one credential of a role does not
use up what the others have. Nothing secret is in these names.
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
    """The holder and the group of a token."""
    own = f"token/{record.accessor}"
    return Groups(record.holder or own, record.quota or own)
