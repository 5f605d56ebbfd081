"""`strongbox policy test FILE`: policies kept in git, and what they must allow and refuse, without a server.

    {
      "policies": {"app": "app.json", "ops": {"rules": [{"path": "sys/*", "capabilities": ["read"]}]}},
      "tokens": {"web": ["app", "default"], "admin": ["root"]},
      "cases": [
        ["web", "secret/app/db", "read", "allow"],
        ["web", "secret/other", "read", "deny"]
      ]
    }

* A policy is a file beside FILE, or written out; `default` and `root` are built in.
* A token is a name for a list of policies.
* A case is token, policy path, capability, and `allow` or `deny`; the engine that decides is the servers'
  own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from strongbox import paths
from strongbox.access.policy_engine import CAPABILITIES, Policies, Rule
from strongbox.access.record_reader import BUILT_IN, ROOT
from strongbox.cli.connect import complain
from strongbox.cli.input_values import read_json
from strongbox.cli.policy_file import PolicyFile, read_policy, require_sound
from strongbox.errors import StrongBoxError

_FIELDS = {"policies", "tokens", "cases"}
_WORDS = {"allow": True, "deny": False}


class Result(NamedTuple):
    """One case and what came of it."""

    token: str
    path: str
    capability: str
    expected: str
    decided: str
    rule: str

    @property
    def holds(self) -> bool:
        """Whether it came out as expected."""
        return self.expected == self.decided


def run(file: Path) -> list[Result]:
    """Decide every case of a file; exits when the file makes no sense."""
    document = read_json(file, str(file))
    if not isinstance(document, dict) or set(document) != _FIELDS:
        complain(f"{file}: it has {', '.join(sorted(_FIELDS))}, and nothing else")
    rules = _policies(file, document["policies"])
    tokens = {name: _compiled(file, name, named, rules) for name, named in _object(file, document["tokens"])}
    cases = document["cases"]
    if not isinstance(cases, list) or not cases:
        complain(f"{file}: cases is a list, and not empty: nothing would be tested")
    return [_decide(file, number, case, tokens) for number, case in enumerate(cases, 1)]


def _policies(file: Path, told: Any) -> dict[str, Sequence[Rule]]:
    found: dict[str, Sequence[Rule]] = {}
    for name, policy in _object(file, told):
        if not _is_name(name) or paths.fold_name(name) in (*found, *BUILT_IN):
            complain(f"{file}: {json.dumps(name)} cannot be a policy's name here")
        if isinstance(policy, str):
            place = file.parent / policy
            found[paths.fold_name(name)] = require_sound(str(place), read_policy(place, name))
        elif isinstance(policy, dict) and isinstance(policy.get("rules"), list):
            found[paths.fold_name(name)] = require_sound(f"{file} ({name})", PolicyFile(policy["rules"], []))
        else:
            complain(f'{file}: the policy {name} is a file\'s name or {{"rules": […]}}')
    return found


def _compiled(file: Path, token: str, named: Any, rules: Mapping[str, Sequence[Rule]]) -> Policies:
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        complain(f"{file}: the token {token} is a list of policies")
    own: dict[str, Sequence[Rule]] = {}
    for name in map(paths.fold_name, named):
        if name not in rules and name not in BUILT_IN:
            complain(f"{file}: the token {token} names the policy {name}, which is not there")
        own[name] = rules[name] if name in rules else BUILT_IN[name].rules
    return Policies.of(own, is_root=ROOT.name in own)


def _decide(file: Path, number: int, case: Any, tokens: Mapping[str, Policies]) -> Result:
    if not isinstance(case, list) or len(case) != 4 or not all(isinstance(part, str) for part in case):
        complain(f"{file}: case {number} is [token, path, capability, expected]")
    token, path, capability, expected = case
    if token not in tokens or capability not in CAPABILITIES - {"deny"} or expected not in _WORDS:
        complain(f"{file}: case {number}: an unknown token, capability, or neither allow nor deny")
    try:
        paths.require_canonical(path.removesuffix("/"))
    except StrongBoxError as error:
        complain(f"{file}: case {number}: {error.message}")
    decision = tokens[token].decide(capability, path)
    return Result(
        token, path, capability, expected, "allow" if decision.allowed else "deny", decision.pattern
    )


def _object(file: Path, told: Any) -> list[tuple[str, Any]]:
    if not isinstance(told, dict):
        complain(f"{file}: policies and tokens are objects")
    return list(told.items())


def _is_name(name: str) -> bool:
    try:
        return bool(paths.require_name(name, "policy"))
    except StrongBoxError:
        return False
