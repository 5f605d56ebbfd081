"""The part of the lock needed at run time: `python runtime_lock.py pyproject.toml requirements.lock`.

The lock names, below each package, what requires it (`# via`). The project's own dependencies are kept, and
all that kept packages require; the developers' tools and what only these require are left out.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)==.*?(?=^[a-z0-9]|\Z)", re.MULTILINE | re.DOTALL)


def runtime_lock(project: str, lock: str) -> str:
    """The kept entries of `lock`, hashes and all. Raises KeyError when a dependency is not in it."""
    entries = {found[1]: found[0] for found in _ENTRY.finditer(lock)}
    wanted = {_plain(name) for name in tomllib.loads(project)["project"]["dependencies"]}
    kept: set[str] = set()
    while wanted - kept:
        kept |= wanted
        wanted = {name for name, text in entries.items() if kept & _who_wants(text)}
    return "".join(entries[name] for name in sorted(kept))


def _who_wants(entry: str) -> set[str]:
    told = entry.partition("# via")[2].replace("#", " ")
    return {_plain(name) for name in told.split()}


def _plain(requirement: str) -> str:
    """A package's name as the lock spells it."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


if __name__ == "__main__":
    sys.stdout.write(runtime_lock(*(Path(name).read_text("utf-8") for name in sys.argv[1:])))
