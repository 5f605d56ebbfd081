"""docs/findings.md and the gateway's table name tests and planted bugs that exist; each row has its form."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_TEXT = (_ROOT / "docs" / "findings.md").read_text("utf-8")
_ROWS = [line for line in _TEXT.splitlines() if line.startswith("| ")][1:]
_FILE_OR_TEST = re.compile(r"(?P<file>[\w/]*\btest_\w+\.py)|::(?P<test>test_\w+)")
_PLANTED = re.compile(r"(?:test_planted\.py|test_a_planted_bug_is_caught)\[(\w+)\]")
_SEEN = {"yes", "no", "suite", "argued"}


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: _cells(row)[0])
def test_every_test_that_a_finding_names_exists(row: str) -> None:
    finding, *_, named, seen = _cells(row)
    assert len(_cells(row)) == 5, f"{finding}: five columns"
    assert seen in _SEEN
    assert "…" not in named, f"{finding}: a test's name is written out"
    assert _missing(named) == []


def test_a_finding_that_was_seen_names_what_was_seen() -> None:
    silent = [_cells(row)[0] for row in _ROWS if _cells(row)[-1] == "yes" and "test_" not in _cells(row)[3]]
    assert silent == []


def test_what_is_missing_is_found() -> None:
    here = "tests/architecture/test_findings.py"
    assert _missing(f"{here}::test_what_is_missing_is_found, ::test_nothing") == ["test_nothing"]
    assert _missing("test_findings.py::test_what_is_missing_is_found") == []
    assert _missing("tests/test_findings.py") == ["tests/test_findings.py"]
    assert _missing("test_planted.py[nothing]") == ["nothing"]


def test_every_test_that_the_gateways_table_names_exists() -> None:
    """There by a part of its name, behind an ellipsis."""
    text = (_ROOT / "gateway" / "README.md").read_text("utf-8")
    parts = set(re.findall(r"…(\w+)", text) + re.findall(r"::(test_\w+)", text))
    there = set().union(*(_tests_of(file) for file in (_ROOT / "tests" / "gateway").glob("test_*.py")))
    assert len(parts) > 5
    assert [part for part in sorted(parts) if not any(part in name for name in there)] == []
    assert _missing(" ".join(re.findall(r"test_\w+\.py", text))) == []


def _missing(named: str) -> list[str]:
    """Which files, tests behind `::` (of the file that was named last) and planted bugs are not there."""
    missing, files = [], []
    for found in _FILE_OR_TEST.finditer(named):
        if found["file"]:
            files = [file for file in _files() if f"/{file}".endswith(f"/{found['file']}")]
            if "/" in found["file"]:
                files = [file for file in files if file == found["file"]]
            missing += [] if files else [found["file"]]
        elif not any(found["test"] in _tests_of(_ROOT / file) for file in files):
            missing.append(found["test"])
    planted = {file.stem for file in (_ROOT / "tests" / "robustness" / "planted").glob("*.py")}
    return missing + [name for name in _PLANTED.findall(named) if name not in planted]


@cache
def _files() -> tuple[str, ...]:
    return tuple(str(file.relative_to(_ROOT)) for file in (_ROOT / "tests").rglob("test_*.py"))


@cache
def _tests_of(file: Path) -> frozenset[str]:
    tree = ast.walk(ast.parse(file.read_text("utf-8")))
    functions = (node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))
