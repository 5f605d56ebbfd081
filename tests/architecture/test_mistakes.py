"""tests/README.md names tests that exist, and no test of the tree is skipped, expected to fail, or empty."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
# What a kernel may refuse to a user is promised only where it does not.
_MAY_SKIP = ("strongbox/crypto/test_memory_protection.py",)
_FORBIDDEN = {"skip", "skipif", "skipIf", "xfail", "importorskip"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_every_test_that_the_table_of_mistakes_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (_TESTS / "README.md").read_text()))
    there = {function.name for _, function in _functions()}
    assert len(named) > 40
    assert sorted(named - there) == []


def test_no_test_is_skipped_or_empty() -> None:
    faults = []
    for file in set(_TESTS.rglob("test_*.py")) - {_TESTS / one for one in _MAY_SKIP}:
        tree = ast.parse(file.read_text())
        faults += [
            f"{file.name}:{node.lineno} {name}"
            for node in ast.walk(tree)
            if (name := _name_of(node)) in _FORBIDDEN
        ]
    faults += [
        f"{file.name} {function.name} is empty" for file, function in _functions() if _is_empty(function)
    ]
    assert faults == []


def test_secrets_are_compared_in_constant_time() -> None:
    """No `==` beside a name of what is secret, in all the product."""
    secret = re.compile(r"(token|share|hmac|mac|digest|password|secret_id)s?$")
    faults = []
    for folder in ("strongbox/crypto", "strongbox/access", "services/seal", "services/auth"):
        for file in (_TESTS.parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Compare) and _compares_secret(node, secret):
                    faults.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    assert faults == []


def _compares_secret(node: ast.Compare, secret: re.Pattern[str]) -> bool:
    if not any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
        return False
    sides = [node.left, *node.comparators]
    if any(isinstance(side, ast.Constant | ast.Call) for side in sides):
        return False  # a length, a kind, an empty one
    names = (side.attr if isinstance(side, ast.Attribute) else getattr(side, "id", "") for side in sides)
    return any(secret.search(name) for name in names)


def _functions() -> Iterator[tuple[Path, _Function]]:
    for file in _TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, _Function) and node.name.startswith("test_"):
                yield file, node


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_empty(function: _Function) -> bool:
    return all(
        isinstance(step, ast.Pass) or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
        for step in function.body
    )
