"""The terminal of whoever follows the documentation: one shell, whose variables and background jobs stay."""

from __future__ import annotations

import os
import queue
import re
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

# A person reads "Forwarding from" before going on.
_FORWARDS = re.compile(r"^(.*port-forward.* (\d+):\d+ &)$", re.M)
_UNTIL = "until (exec 3<>/dev/tcp/localhost/{port}) 2>/dev/null; do sleep 0.1; done"


class CommandFailed(Exception):
    """A command did not do what it should: which, how, and what it said."""

    def __init__(self, script: str, how: str, said: str) -> None:
        super().__init__(f"{how}:\n$ {script.strip()}\n{said[-3000:]}")
        self.said = said


class Terminal:
    """`environment` is all that it has at first."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "-euo", "pipefail"], cwd=folder, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, name="terminal", daemon=True).start()

    def run(self, script: str, timeout: float = 60.0, given: str = "/dev/null") -> str:
        """What it prints; `given` is its standard input. Raises CommandFailed."""
        mark = secrets.token_hex(8)
        text = _FORWARDS.sub(lambda m: f"{m[1]}\n{_UNTIL.format(port=m[2])}", script)
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{{ {text}\n}} <{given}\necho; echo {mark}\n")
        begun, said = time.monotonic(), ""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, timeout - (time.monotonic() - begun)))
            except queue.Empty:
                raise CommandFailed(script, f"not done after {timeout:.0f} s", said) from None
            if line is None:
                code = self._shell.wait()
                after = time.monotonic() - begun
                raise CommandFailed(script, f"exit status {code} after {after:.1f} s", said)
            if line.strip() == mark:
                return said
            said += line

    def close(self) -> None:
        """With whatever runs in its background."""
        try:
            os.killpg(self._shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._shell.wait()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._lines.put(line)
        self._lines.put(None)
