"""Policies: named lists of rules. Pure functions of a view.

Rules:
* At most 256 rules and 64 KiB; every pattern and capability is checked when written
  (strongbox.access.policy_engine).
* `root` and `default` are built in: they can be read, not written and not deleted, in any spelling.
* Names are compared folded: `App` cannot be written while `app` exists. A policy answers to its own spelling
  only, so a rule that denies `sys/policies/App` cannot be evaded by another spelling.
* Writing replaces the whole policy; deleting one that is not there succeeds. A token that names a deleted
  policy may do nothing from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.auth.repository import Repository
from strongbox import paths
from strongbox.access.policy_engine import Rule
from strongbox.access.record_reader import BUILT_IN
from strongbox.errors import InvalidInput, NotFound
from strongbox.store import keyspace
from strongbox.store.decisions.view import View

MAX_RULES = 256


class Found(NamedTuple):
    """A policy and the etcd revision at which it was last written (0: built in)."""

    name: str
    rules: tuple[Rule, ...]
    revision: int


def policy_path(name: str) -> str:
    """What policies call a policy."""
    return f"sys/policies/{name}"


def require_readable(name: str) -> str:
    """Return a policy's name. Raises `InvalidInput` when it cannot be one."""
    return paths.require_name(name, "policy")


def require_writable(name: str) -> str:
    """Return a policy's name. Raises `InvalidInput` when it cannot be one, or is built in."""
    require_readable(name)
    if paths.fold_name(name) in BUILT_IN:
        raise InvalidInput("root and default are built in and cannot be changed")
    return name


class Policies:
    """Decisions about policies, after the guard's."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def write(self, view: View, name: str, rules: Sequence[Rule]) -> None:
        """Make or replace a policy. Raises `InvalidInput`, `TooLarge`."""
        if len(rules) > MAX_RULES:
            raise InvalidInput(f"a policy has at most {MAX_RULES} rules")
        existing = self._repository.lookup.policy(view, name)
        if existing is not None and existing.name != name:
            raise InvalidInput("a policy of this name exists in other letters", name=existing.name)
        self._repository.put_policy(view, name, rules)

    def read(self, view: View, name: str) -> Found:
        """Raises `NotFound`."""
        found = self._repository.lookup.policy(view, name)
        if found is None or found.name != name:
            raise NotFound("there is no policy of that name")
        folded = paths.fold_name(name)
        revision = 0 if folded in BUILT_IN else view.get(keyspace.policy(folded)).mod_revision
        return Found(found.name, found.rules, revision)

    def delete(self, view: View, name: str) -> None:
        """Remove a policy, there or not. Raises `NotFound` when it is there in other letters."""
        found = self._repository.lookup.policy(view, name)
        if found is not None and found.name != name:
            raise NotFound("there is no policy of that name")
        view.delete(keyspace.policy(paths.fold_name(name)))
