"""Enter namespaces of our own, so that a rehearsal that is killed leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_INSIDE = "STRONGBOX_REHEARSAL_INSIDE"
_NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
PLACE = Path("/run/rehearsal")


class CannotRehearse(Exception):
    """This machine does not give what a rehearsal needs; the text says what, and how to get it."""


def require() -> None:
    """Raises CannotRehearse."""
    if os.geteuid() != 0:
        raise CannotRehearse(
            "a rehearsal needs root (network and mount namespaces): run it as root, or in CI"
        )
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("setpriv", "util-linux"),
                             ("mount", "mount"), ("curl", "curl"), ("bash", "bash")):  # fmt: skip
        if shutil.which(program) is None:
            raise CannotRehearse(f"a rehearsal needs the program {program}: apt-get install {package}")

    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "ip", "link", "add", "tried0", "type", "bridge"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if tried.returncode != 0:
        said = tried.stderr.strip()
        raise CannotRehearse(
            f"a rehearsal needs namespaces with a bridge, which this machine refuses: {said}"
        )


def command(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """What runs `python -m tests.rehearsal ARGUMENTS` inside, and its environment. Raises CannotRehearse.

    Its processes, networks and mounts are gone when it is: it is the first process of its namespace, and the
    kernel ends the others with that one.
    """
    require()
    inside = [sys.executable, "-m", "tests.rehearsal", *arguments]
    outside = ["setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES]
    return [*outside, *inside], {**os.environ, _INSIDE: "1", "GRPC_VERBOSITY": "NONE"}


def is_inside() -> bool:
    return os.environ.get(_INSIDE) == "1"


def enter(arguments: list[str]) -> None:
    """Become the rehearsal inside. Raises CannotRehearse; does not return."""
    words, environment = command(arguments)
    os.execvpe(words[0], words, environment)
