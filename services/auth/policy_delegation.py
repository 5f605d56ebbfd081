"""Which policies a caller may give: makers of tokens, users and roles give only what they have.

* Policies that are given must exist. Their names are kept as the policies spell them, without duplicates.
* Without `sudo` on the path of what is written, a caller gives only policies of its own. With them it must
  give all of its own that `deny` something, and those whose narrower rules bind a wider rule that is given:
  so what is given never allows more than the caller may (strongbox.access.policy_narrowing). `default` is
  about a token itself, and may be left out or added. Only a caller with `root` gives `root`.
* Whoever may make secret ids of a role can log in as that role. So `write` on the path
  `auth/approles/<name>/secret-id`, which a rule on `auth/approles/*` covers, gives access to the role's
  policies. Only for a role with `root` must the caller have `root`.
* Whoever replaces a user or role must be able to give the policies that it has already. Otherwise a caller
  could set the password of a user with more rights, and log in with it.
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
    """Names of policies as a caller sends them. Raises `InvalidInput`."""
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
    """Whether the caller leaves out a policy that restricts it, and so would give more than it may do."""
    if not given:
        return False
    return not caller.denying <= given or caller.may_do_less_than(given | {access.DEFAULT_POLICY})


def require_root_for_root(caller: Caller, names: Iterable[str]) -> None:
    """Raise `PermissionDenied` when these policies hold `root` and the caller's do not."""
    if access.ROOT_POLICY in {paths.fold_name(name) for name in names} and not caller.is_root:
        raise PermissionDenied("only a token with the root policy gives it")


def spelt(lookup: Lookup, view: View, names: Iterable[str]) -> list[str]:
    """Each policy's name once, as the policy spells it. Raises `InvalidInput` for one that does not exist."""
    asked = {paths.fold_name(name): name for name in names}
    found = [(name, lookup.policy(view, name)) for name in asked.values()]
    for name, policy in found:
        if policy is None:
            raise InvalidInput("a policy that is named does not exist", policy=name)
    return [policy.name for _, policy in found if policy is not None]
