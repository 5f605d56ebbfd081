"""Child processes and process ids.

A pid alone names nobody: it is used again. Here a process is (pid, start time in clock ticks since boot), as
/proc/PID/stat tells; what does not match is not ours and is never signalled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")


class StartError(Exception):
    """A process did not come up; the text says which, why, and where its log is."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, in all the time since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The process that has this pid now (if none, one that is never alive)."""
        return cls(pid, started_at(pid) or -1)

    def is_alive(self) -> bool:
        """Whether it runs (a zombie does not)."""
        return started_at(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal, if it is still this process."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def started_at(pid: int) -> int | None:
    """When the process of this pid started, in clock ticks since boot; None if there is none or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def dying_with_parent(signal_name: str = "KILL") -> list[str]:
    """A command prefix: the program gets this signal when the *thread* that started it ends."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name] if setpriv else []


def wheel_folder(package: str) -> Path | None:
    """Where an installed wheel keeps its files (they bring real programs); None when it is not installed."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None


def inherited_environment() -> dict[str, str]:
    """What a child gets of ours: enough to run, and no token that lies about."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


@dataclass(frozen=True, slots=True)
class Spec:
    """How one process is started. `is_ready` is asked again and again and must be quick."""

    node: str
    name: str
    address: str
    command: Sequence[str]
    log: Path
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    cwd: Path | None = None

    @property
    def output(self) -> Path:
        """Where its standard output goes: beside the log, started anew each time."""
        return self.log.with_suffix(".out")

    def __str__(self) -> str:
        return f"{self.node}'s {self.name}"


class Child:
    """A process of ours, running or dead."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        spec.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with spec.log.open("ab") as log, spec.output.open("wb") as output:
            self._popen = subprocess.Popen(
                list(spec.command),
                env={**inherited_environment(), **spec.environment},
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the runner, which stops the others in order
            )
        self.identity = Identity.of(self._popen.pid)
        self.reported = False  # whether its end has been told

    @property
    def status(self) -> int | None:
        """None while it runs, then its exit status (reaped)."""
        return self._popen.poll()

    def has_ended(self) -> bool:
        """Whether it ended; reaps it. A zombie cannot be reaped while its threads end, and is waited for."""
        if self.status is None and not self.identity.is_alive():
            self.wait()
        return self.status is not None

    def wait(self) -> None:
        """Reap it."""
        self._popen.wait()


def end_of(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error's text."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait_until_ready(
    children: Iterable[Child], timeout: float, give_up: Callable[[], bool] = lambda: False
) -> None:
    """Until each is ready, `timeout` seconds in all. Raises StartError; returns early when `give_up()`."""
    waiting = list(children)
    deadline = time.monotonic() + timeout
    while waiting and not give_up():
        for child in waiting:
            if child.status is not None:
                log = child.spec.log
                raise StartError(f"{child.spec} ended with status {child.status}; {log}:\n{end_of(log)}")
        waiting = [child for child in waiting if not child.spec.is_ready()]
        if waiting and time.monotonic() > deadline:
            spec = waiting[0].spec
            raise StartError(f"{spec} is not ready after {timeout:.0f} s; {spec.log}:\n{end_of(spec.log)}")
        time.sleep(0.05)


def stop_all(groups: Sequence[Sequence[tuple[Identity, int]]], patience: float = 5.0) -> None:
    """Stop group after group: the signal of each, and SIGKILL for what is left after `patience` seconds.

    A paused process is continued, or it would not hear the signal.
    """
    for group in groups:
        for process, number in group:
            process.signal(number)
            process.signal(signal.SIGCONT)
        wait_until_gone([process for process, _ in group], patience)
        for process, _ in group:
            process.signal(signal.SIGKILL)
        wait_until_gone([process for process, _ in group], patience)


def wait_until_gone(processes: Iterable[Identity], timeout: float) -> bool:
    """Whether all ended within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while any(process.is_alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
