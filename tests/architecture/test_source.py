"""Habits that no linter knows: names of rooms, who prints, what a committed file may speak of."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_IDEA = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
# Commands print. A service prints two lines: that it is ready, and why it cannot start.
PRINTERS = (
    "strongbox/cli/",
    "strongbox/dev/",
    "strongbox/setup/",
    "strongbox/audit_log/verify_command.py",
    "strongbox/process/lifecycle.py",
)
# A folder of one machine: nobody else has it.
SOMEBODYS = re.compile(rb"(?<![\w.$}\])-])/(?:tmp|work|home|root|opt|mnt)/\w")


@cache
def committed() -> tuple[Path, ...]:
    """Files that git tracks, or would with the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    paths = (ROOT / name for name in listed.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def sources() -> list[Path]:
    """Modules that people wrote."""
    return [path for path in committed() if path.suffix == ".py" and "_pb2" not in path.name]


def test_no_module_is_named_after_nothing() -> None:
    assert [path for path in sources() if NO_IDEA & {path.stem, *path.parts}] == []


def test_only_commands_print() -> None:
    printing = {str(path.relative_to(ROOT)) for path in sources() if _prints(path)}
    services = {path for path in printing if path.startswith(("strongbox/", "services/"))}
    assert [path for path in sorted(services) if not path.startswith(PRINTERS)] == []


def test_nothing_committed_names_a_folder_of_one_machine() -> None:
    found = [path for path in committed() if SOMEBODYS.search(path.read_bytes())]
    assert [str(path.relative_to(ROOT)) for path in found] == []


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pinned = re.findall(r"^[\w.-]+==\S+(?: ;.*)? \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^\w", lock, re.MULTILINE))
    assert not re.search(r"://|^\s*-", re.sub(r"^    --hash=", "", lock, flags=re.MULTILINE), re.MULTILINE)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text("utf-8")
    if path.name == "__init__.py" and not text.strip():
        return
    assert ast.get_docstring(ast.parse(text))


def _prints(path: Path) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for node in ast.walk(ast.parse(path.read_bytes()))
    )
