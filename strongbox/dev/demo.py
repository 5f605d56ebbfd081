"""`make run`: three nodes, unsealed; a secret written through one and read through the others; then it stays.

What it prints are the very lines it runs: copied into a shell they do the same. The data goes when it ends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from strongbox.dev import ports
from strongbox.dev.cluster import Cluster
from strongbox.dev.layout import DEFAULT_BASE_PORT, Wishes
from strongbox.dev.runner.commands import DevError, Up, up

NODES = 3


def main() -> int:
    """Run until Ctrl-C; 1 when it did not come up or a line failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base-port", type=int, default=_base_port())
    base_port: int = parser.parse_args().base_port
    folder = Path(tempfile.mkdtemp(prefix="strongbox-run-"))
    print(f"starting three nodes in {folder} …", flush=True)
    asked = Up(folder, Wishes(NODES, base_port, postgres=False), unseal=True)
    try:
        up(asked, lambda text: print(text, flush=True), on_ready=lambda: _show(Cluster(folder)))
    except DevError as error:
        print(f"strongbox: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _base_port() -> int:
    """The usual one, unless another cluster has it."""
    usual = all(ports.is_free(DEFAULT_BASE_PORT + n) for n in range(1, NODES + 1))
    return DEFAULT_BASE_PORT if usual else ports.free_base(NODES)


def _show(cluster: Cluster) -> None:
    """Write through node 1, read through all, with each kind of client. Raises DevError."""
    for title, line in _lines(cluster):
        print(f"\n# {title}\n$ {line}", flush=True)
        environment = {**os.environ, "STRONGBOX_TOKEN": cluster.root_token}
        done = subprocess.run(["/bin/sh", "-c", line], env=environment, check=False, timeout=60)
        if done.returncode:
            raise DevError(f"this line failed with status {done.returncode}: {line}")
    print("\nStrongBox runs; Ctrl-C ends it and deletes its data.", flush=True)


def _lines(cluster: Cluster) -> list[tuple[str, str]]:
    """Titles and shell lines."""
    first, second, third = cluster.gateways
    command, python = _command(), sys.executable
    token = f'sed -n \'s/.*"root_token": "\\([^"]*\\)".*/\\1/p\' {cluster.folder}/init.json'
    bearer = '-H "authorization: Bearer $STRONGBOX_TOKEN"'
    curl = "curl --silent --show-error --fail-with-body --write-out '\\n'"
    read = f"StrongBox('{third}', os.environ['STRONGBOX_TOKEN']).kv.get('demo/greeting').value"
    lines = [
        ("the root token, for the lines below", f"export STRONGBOX_TOKEN=$({token})"),
        ("the command, through node 1", f"printf hello | STRONGBOX_ADDR={first} {command} kv put demo/word"),
        ("the command, through node 2", f"STRONGBOX_ADDR={second} {command} kv get demo/word"),
    ]
    if shutil.which("curl"):
        body = '\'{"data": {"text": "hello", "to": "world"}}\''
        lines[1:1] = [
            ("REST, through node 1", f"{curl} {bearer} -X PUT {first}/v1/secrets/demo/greeting -d {body}"),
            ("REST, through node 2", f"{curl} {bearer} {second}/v1/secrets/demo/greeting"),
            (
                "gRPC, through node 3",
                f'{python} -c "import os; from strongbox.client import StrongBox; print({read})"',
            ),
        ]
    return lines


def _command() -> str:
    installed = Path(sys.executable).with_name("strongbox")
    return str(installed) if installed.exists() else f"{sys.executable} -m strongbox.cli"


if __name__ == "__main__":
    sys.exit(main())
