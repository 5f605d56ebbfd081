"""What is started beside the cluster under attack: the relay, a probe on each host, and the undertaker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.robustness.environment import environment
from tests.support.cluster import ROOT
from tests.support.etcd import dying_with_parent
from tests.support.lab import Lab


def start_undertaker(folder: Path) -> subprocess.Popen[bytes]:
    """Takes the cluster down when this process is gone, however it went: the pipe to it ends then."""
    down = f"exec {sys.executable} -m strongbox.dev down --data {folder}"
    command = ["sh", "-c", f"cat >/dev/null; {down}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)


def start_relay(lab: Lab, host: int, folder: Path, pairs: Sequence[str]) -> subprocess.Popen[str]:
    """On a host of the lab; `pairs` are ADDRESS=NODE (tests.robustness.relay). Raises RuntimeError."""
    relay = subprocess.Popen(
        [*lab.enter(host), *dying_with_parent(), sys.executable, "-m",
         "tests.robustness.relay", str(folder / "layout.json"), *pairs],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert relay.stdout is not None
    if relay.stdout.readline().strip() != "ready":
        raise RuntimeError("the relay does not start")
    return relay


def start_probe(
    lab: Lab, host: int, node: str, folder: Path, arguments: Sequence[str]
) -> subprocess.Popen[bytes]:
    """On a host of the lab, for its node; `arguments`: certificates, members (tests.robustness.probe)."""
    with (folder / f"probe-{host}.log").open("wb") as log, environment():
        return subprocess.Popen(
            [*lab.enter(host), *dying_with_parent(), sys.executable, "-m",
             "tests.robustness.probe", node, *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
            env={**os.environ, "STRONGBOX_DATA_DIR": str(folder / node / "probe")},
        )  # fmt: skip
