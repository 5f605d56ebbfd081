"""An empty cluster for a person: shells of one's own beside it, each as the terminal of who deploys.

    .venv/bin/python -m tests.rehearsal prod --by-hand

prints the command that opens one; Ctrl-C ends the cluster and everything in it.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from pathlib import Path

from tests.rehearsal import outer
from tests.rehearsal.stage import Stage

_SHELL = "shell"


def offer(stage: Stage) -> None:
    """Inside: write the script that opens a shell, and wait until told to end."""
    exports = (
        f"export {name}={shlex.quote(value)}"
        for name, value in stage.environment.items()
        if name.isidentifier()
    )
    script = stage.place / _SHELL
    lines = ["#!/bin/bash", *exports, f"cd {shlex.quote(str(stage.work))}", 'exec bash --norc "$@"']
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o700)
    print("the cluster is empty and ready; Ctrl-C ends it", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


def run(command: list[str], environment: dict[str, str]) -> int:
    """Outside: begin it, and say how to get in. The exit status."""
    with subprocess.Popen(command, env=environment) as began:
        inside = _first_process_of(began)
        shell = Path("/", *outer.PLACE.parts[1:], _SHELL)
        print(f"a shell in it:  nsenter --target {inside} --mount --net --pid --ipc --uts {shell}")
        print("one command:    … -c 'kubectl get pods -A'", flush=True)
        try:
            return began.wait()
        except KeyboardInterrupt:
            return 0


def _first_process_of(began: subprocess.Popen[bytes]) -> int:
    """That of its namespace of processes: the child of unshare(1)."""
    children = Path(f"/proc/{began.pid}/task/{began.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.05)
    return int(found[0])
