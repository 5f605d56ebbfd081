"""Which RPCs the contract tests exercise: `covers` names those that a test is about."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])
Fresh = Callable[[str], str]


def covers(*names: str) -> Callable[[Test], Test]:
    """Says that a test exercises these RPCs; read from the source by `covered`."""
    del names
    return lambda test: test


def covered(folder: Path) -> set[str]:
    """All names that a `@covers(…)` in a test module of `folder` gives."""
    trees = [ast.parse(file.read_text()) for file in folder.glob("test_*.py")]
    calls = [
        decorator
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "covers"
    ]
    return {str(ast.literal_eval(argument)) for call in calls for argument in call.args}


def all_pages(client: Any, name: str, field: str, **fields: Any) -> list[str]:
    """Every page of a list, joined."""
    found: list[str] = []
    token = ""
    for _ in range(200):
        page = client.call(name, page_token=token, **fields)
        found += list(getattr(page, field))
        token = page.next_page_token
        if not token:
            return found
    raise AssertionError("the pages have no end")
