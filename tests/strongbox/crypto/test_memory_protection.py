"""Core dumps, tracing, locked pages: asked of the kernel, in processes of their own."""

from __future__ import annotations

import copy
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from strongbox.crypto import WipedError
from strongbox.crypto.memory_protection import LockedBytes

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the promises are Linux's")


def _run(program: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # Allowed to dump before the program starts, so that it is hardening that forbids it.
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=_allow_cores,
    )  # fmt: skip


def _allow_cores() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def test_a_hardened_process_leaves_no_core_and_cannot_allow_it_again(tmp_path: Path) -> None:
    program = """
import os, resource, signal
from strongbox.crypto.memory_protection import harden_process, is_dumpable
assert is_dumpable()
assert harden_process() == []
assert not is_dumpable()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    done = _run(program, tmp_path)
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_says_that_a_hardened_process_dumped_no_core(tmp_path: Path) -> None:
    """WCOREDUMP tells what the kernel did, wherever kernel.core_pattern sends cores."""
    program = """
import os
from strongbox.crypto.memory_protection import harden_process
harden_process()
child = os.fork()
if child == 0:
    os.abort()
status = os.waitpid(child, 0)[1]
print(os.WIFSIGNALED(status), os.WCOREDUMP(status))
"""
    assert _run(program, tmp_path).stdout.split() == ["True", "False"]


def test_exec_makes_a_process_dumpable_again_so_hardening_is_repeated() -> None:
    """Why a seal that re-executes itself hardens again before it has any key."""
    program = """
import os, sys
from strongbox.crypto.memory_protection import harden_process, is_dumpable
if "again" in sys.argv:
    print("dumpable" if is_dumpable() else "hardened", flush=True)
    harden_process()
    print("dumpable" if is_dumpable() else "hardened")
else:
    harden_process()
    os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], "again"])
"""
    done = _run(program)
    assert done.stdout.split()[1] == "hardened", done.stderr


def test_a_locked_page_is_private_locked_and_kept_out_of_dumps_and_forks() -> None:
    secret = LockedBytes(b"hunter2")
    if not secret.locked:
        pytest.skip("this kernel lets this user lock nothing")
    found = [flags for flags in _flags_of_mappings() if {"lo", "dd", "dc"} <= flags]
    assert any("sh" not in flags for flags in found)
    secret.wipe()


def _flags_of_mappings() -> list[set[str]]:
    text = Path("/proc/self/smaps").read_text()
    return [set(line.split()) for line in re.findall(r"^VmFlags: (.*)$", text, re.MULTILINE)]


def test_a_locked_page_gives_its_bytes_until_it_is_wiped() -> None:
    secret = LockedBytes(bytearray(b"hunter2"))
    view = secret.view()
    assert (secret.expose(), len(secret), bytes(view)) == (b"hunter2", 7, b"hunter2")
    with pytest.raises(TypeError):
        view[0] = 0
    secret.wipe()
    secret.wipe()
    assert bytes(view) == bytes(7)
    for use in (secret.expose, secret.view):
        with pytest.raises(WipedError):
            use()


def test_a_with_block_wipes_a_locked_page_even_when_it_raises() -> None:
    secret = LockedBytes(b"x")
    with pytest.raises(KeyError), secret:
        raise KeyError
    with pytest.raises(WipedError):
        secret.expose()


def test_a_locked_page_does_not_print_pickle_or_copy_itself() -> None:
    secret = LockedBytes(b"hunter2")
    assert "hunter" not in f"{secret} {secret!r}"
    for attempt in (bytes, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(secret)


def test_a_locked_page_holds_a_page_and_no_more() -> None:
    assert len(LockedBytes(bytes(4096))) == 4096
    with pytest.raises(ValueError, match="4096"):
        LockedBytes(bytes(4097))
