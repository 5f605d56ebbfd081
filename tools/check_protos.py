"""Is the committed generated code what the protos say? Run by `make protos-check`; exit 1 names the files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.generate_protos import PACKAGES, ROOT

DESCRIPTOR = Path("gateway/strongbox.binpb")


def main() -> int:
    """Generate into a folder of its own and compare."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        command = [sys.executable, "-m", "tools.generate_protos", "--into", folder]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return 1
        wrong = sorted(
            path for path in {*generated(ROOT), *generated(fresh)} if differs(ROOT / path, fresh / path)
        )
    for path in wrong:
        print(f"{path}: not what the protos say; run `make protos` and commit", file=sys.stderr)
    return 1 if wrong else 0


def generated(root: Path) -> Iterator[Path]:
    """Generated files below `root`, relative to it."""
    yield DESCRIPTOR
    for package in PACKAGES:
        for file in (root / "strongbox" / package).rglob("*.py*"):
            if "__pycache__" not in file.parts:
                yield file.relative_to(root)


def differs(one: Path, other: Path) -> bool:
    """Whether the two do not both exist with the same bytes."""
    return not (one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
