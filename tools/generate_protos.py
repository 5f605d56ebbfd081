"""Generate strongbox/<service>/v1/*_pb2*.py and gateway/strongbox.binpb from protos/.

    python -m tools.generate_protos [--into DIR]      DIR: the project's root by default

Run by `make protos`; `make protos-check` compares.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
THIRD_PARTY = ROOT / "third_party" / "protos"
PACKAGES = ("options", "storage", "seal", "kv", "auth", "lease", "audit")


def main() -> int:
    """Generate all; returns protoc's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT)
    into: Path = parser.parse_args().into
    for package in PACKAGES:
        shutil.rmtree(into / "strongbox" / package, ignore_errors=True)
    (into / "gateway").mkdir(parents=True, exist_ok=True)
    files = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    status = run_protoc(into, files)
    for package in PACKAGES:
        for folder in (into / "strongbox" / package, into / "strongbox" / package / "v1"):
            if folder.is_dir():
                (folder / "__init__.py").touch()
    return status


def run_protoc(into: Path, files: list[str]) -> int:
    """Python code with types, and one descriptor set with everything it imports."""
    command = [
        sys.executable, "-m", "grpc_tools.protoc",
        f"--proto_path={SOURCES}", f"--proto_path={THIRD_PARTY}",
        f"--python_out={into}", f"--grpc_python_out={into}",
        f"--mypy_out=quiet:{into}", f"--mypy_grpc_out=quiet:{into}",
        "--include_imports", f"--descriptor_set_out={into / 'gateway' / 'strongbox.binpb'}",
        *files,
    ]  # fmt: skip
    plugins = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{plugins}:{os.environ.get('PATH', '')}"}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
