"""Processes are known by pid and start time, and end when they are told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongbox.dev.processes.children import (
    Child,
    Identity,
    Spec,
    StartError,
    dying_with_parent,
    stop_all,
    wait_until_gone,
    wait_until_ready,
)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.identity.signal(signal.SIGKILL)
        child.wait()


def spec(folder: Path, program: str, *, ready: bool = True) -> Spec:
    command = [*dying_with_parent(), sys.executable, "-c", program]
    return Spec("node-1", "kv", "127.0.0.1:1", command, folder / "kv.log", lambda: ready)


def test_a_pid_that_somebody_else_has_now_is_never_signalled(tmp_path: Path, children: list[Child]) -> None:
    children.append(Child(spec(tmp_path, "import time; time.sleep(60)")))
    stranger = Identity(children[0].identity.pid, children[0].identity.started - 1)
    stranger.signal(signal.SIGKILL)
    assert not stranger.is_alive()
    assert children[0].identity.is_alive()


def test_a_zombie_is_dead(tmp_path: Path, children: list[Child]) -> None:
    children.append(Child(spec(tmp_path, "pass")))
    assert wait_until_gone([children[0].identity], 10)


def test_stubborn_and_paused_processes_are_stopped(tmp_path: Path, children: list[Child]) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    children += [
        Child(spec(tmp_path / "1", deaf)),
        Child(spec(tmp_path / "2", "import time; time.sleep(60)")),
    ]
    while not (tmp_path / "1" / "kv.out").read_text():
        time.sleep(0.02)
    children[1].identity.signal(signal.SIGSTOP)
    began = time.monotonic()
    stop_all([[(child.identity, signal.SIGTERM) for child in children]], patience=0.5)
    assert not any(child.identity.is_alive() for child in children)
    assert time.monotonic() - began < 5
    assert [child.status for child in children] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_process_that_ends_at_once_is_reported_with_the_end_of_its_log(
    tmp_path: Path, children: list[Child]
) -> None:
    children.append(Child(spec(tmp_path, "import sys; sys.exit('no such file')", ready=False)))
    with pytest.raises(StartError, match=r"node-1's kv ended with status 1(.|\n)*no such file"):
        wait_until_ready(children, 10)


def test_a_process_that_never_gets_ready_is_reported(tmp_path: Path, children: list[Child]) -> None:
    children.append(Child(spec(tmp_path, "import time; time.sleep(60)", ready=False)))
    with pytest.raises(StartError, match="not ready after 0 s"):
        wait_until_ready(children, 0.2)


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from strongbox.dev.processes.children import Child, Spec, dying_with_parent
command = [*dying_with_parent(), "sleep", "60"]
child = Child(Spec("n", "kv", "a", command, Path({str(tmp_path / "kv.log")!r}), lambda: True))
print(child.identity.pid, child.identity.started, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = Identity(*map(int, parent.stdout.readline().split()))
        assert child.is_alive()
        # Before `setpriv` has asked the kernel for it nothing dies with anybody; what it became has asked.
        _wait_until_it_is("sleep", child.pid)
        parent.kill()
    assert wait_until_gone([child], 5)


def _wait_until_it_is(name: str, pid: int) -> None:
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        assert time.monotonic() < until
        time.sleep(0.01)
