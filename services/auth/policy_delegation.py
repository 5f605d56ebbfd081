"""Which policies may be given to whom: makers of tokens, users and roles give what they have.

* Policies exist, and are kept as they spell themselves; duplicates are dropped.
* Without `sudo` on the path of what he writes they are among the giver's, with all of his that `deny`
  something, and with those whose narrower rules bind a wider one that is given: what is given never allows
  what he may not (strongbox.access.policy_narrowing). `default` is about a token itself, and may be left
  out or added. `root` is given only by who has it.
* Who may make secret ids of a role logs in as that role: the path `auth/approles/<name>/secret-id` is worth
  the role's policies, and a rule on `auth/approles/*` covers it. Only for a role with `root` is `root` asked.
* Who replaces a user or role must be able to give what it has already: else a new password for somebody
  mightier would be a promotion.
"""

from __future__ import annotations

from collections.abc import Iterable

from strongbox import paths
from strongbox.access import token_format as access
from strongbox.access.guard import Caller
from strongbox.access.record_reader import Lookup
from strongbox.errors import InvalidInput, PermissionDenied
from strongbox.store.decisions.view import View

MAX_POLICIES = 64


def require_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of policies as somebody sends them. Raises `InvalidInput`."""
    found = tuple(names)
    if len(found) > MAX_POLICIES:
        raise InvalidInput(f"at most {MAX_POLICIES} policies are named")
    return tuple(paths.require_name(name, "policy") for name in found)


def require_may_give(caller: Caller, path: str, names: Iterable[str]) -> None:
    """Raise `PermissionDenied` unless `caller` may give these policies to what `path` names."""
    asked = {paths.fold_name(name) for name in names}
    own = {paths.fold_name(name) for name in caller.policies} | {access.DEFAULT_POLICY}
    require_root_for_root(caller, asked)
    if not asked <= own or _sheds(caller, asked - {access.DEFAULT_POLICY}):
        caller.require("sudo", path)


def _sheds(caller: Caller, given: set[str]) -> bool:
    """Whether he leaves out a policy that binds him, and so would hand on more than he may himself."""
    if not given:
        return False
    return not caller.denying <= given or caller.may_do_less_than(given | {access.DEFAULT_POLICY})


def require_root_for_root(caller: Caller, names: Iterable[str]) -> None:
    """Raise `PermissionDenied` when these policies hold `root` and the caller's do not."""
    if access.ROOT_POLICY in {paths.fold_name(name) for name in names} and not caller.is_root:
        raise PermissionDenied("only a token with the root policy gives it")


def spelt(lookup: Lookup, view: View, names: Iterable[str]) -> list[str]:
    """Each policy once, as it spells itself. Raises `InvalidInput` for one that does not exist."""
    asked = {paths.fold_name(name): name for name in names}
    found = [(name, lookup.policy(view, name)) for name in asked.values()]
    for name, policy in found:
        if policy is None:
            raise InvalidInput("a policy that is named does not exist", policy=name)
    return [policy.name for _, policy in found if policy is not None]
