"""`strongbox dev`, used as people use it: a cluster of one node through a whole life, and one of three."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from strongbox.dev.cluster import Cluster
from strongbox.dev.ports import free_base
from strongbox.dev.processes.children import Identity, wait_until_gone
from strongbox.dev.runner import commands
from strongbox.dev.unseal import call

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[3]


def dev(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command; returns only when nobody holds its output open."""
    command = [sys.executable, "-m", "strongbox.dev", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)


def processes_of(folder: Path) -> list[Identity]:
    """Everything that has this folder on its command line, whoever started it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command + environment:
                found.append(Identity.of(int(entry.name)))
    return [each for each in found if each.is_alive()]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for a cluster that is gone when the test ends."""
    place = tmp_path / "cluster"
    yield place
    if place.exists():
        dev("down", "--data", str(place))
    assert not processes_of(place)


def description(folder: Path) -> Any:
    return json.loads((folder / "cluster.json").read_text())


def test_a_cluster_comes_up_goes_down_and_comes_back_with_everything_in_it(folder: Path) -> None:
    base = free_base(1)
    here = ("--data", str(folder))
    up = dev("up", "--nodes", "1", *here, "--base-port", str(base), "--detach", "--unseal", "--tls")
    assert up.returncode == 0, up.stderr
    said = description(folder)
    names = [process["name"] for process in said["nodes"][0]["processes"]]
    assert names == ["etcd", "seal", "kv", "auth", "lease", "audit", "envoy"]
    gateway = said["nodes"][0]["gateway"]
    assert gateway == f"http://127.0.0.1:{base + 1}"
    init = json.loads((folder / "init.json").read_text())
    assert (folder / "init.json").stat().st_mode & 0o777 == 0o600
    assert (len(init["shares"]), init["threshold"]) == (3, 2)
    assert call("PUT", f"{gateway}/v1/secrets/a", {"value": "kept"}, init["root_token"])[0] == 200
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(said["postgres"]["dsn"].replace("@", "x@"))
    psycopg2.connect(said["postgres"]["dsn"]).close()
    assert dev("status", *here).returncode == 0
    assert {path.parent.name for path in folder.rglob("*.jsonl")} <= {"audit"}

    assert dev("up", *here, "--detach").returncode == 1, "one runner at a time"
    assert dev("down", *here).returncode == 0
    assert not processes_of(folder)
    assert dev("status", *here).returncode == 1

    assert dev("up", *here, "--detach").returncode == 0
    assert call("GET", f"{gateway}/v1/sys/health")[1]["sealed"] is True
    dev("down", *here)
    assert dev("up", *here, "--detach", "--unseal").returncode == 0
    assert call("GET", f"{gateway}/v1/secrets/a", token=init["root_token"])[1]["value"] == "kept"
    assert json.loads((folder / "init.json").read_text()) == init

    runner = Identity(**json.loads((folder / "runner.json").read_text()))
    every = processes_of(folder)
    runner.signal(signal.SIGKILL)
    assert wait_until_gone(every, 10), "a runner that is killed leaves nothing behind"


def test_a_dead_node_is_started_again_and_the_runner_restarts_nothing_by_itself(folder: Path) -> None:
    with Cluster.start(folder, nodes=3) as cluster:
        first, second, third = cluster.gateways
        token = cluster.root_token
        assert call("PUT", f"{third}/v1/secrets/a", {"value": "x"}, token)[0] == 200
        cluster.kill_node("node-2")
        time.sleep(1.5)
        states = {(each["node"], each["name"]): each["running"] for each in commands.status(folder)}
        assert not any(running for (node, _), running in states.items() if node == "node-2")
        assert all(running for (node, _), running in states.items() if node != "node-2")
        assert call("GET", f"{first}/v1/secrets/a", token=token)[0] == 200
        with pytest.raises(OSError, match="refused"):
            call("GET", f"{second}/v1/sys/health")
        again = dev("up", "--data", str(folder), "--node", "node-2")
        assert again.returncode == 0, again.stderr
        assert call("GET", f"{second}/v1/sys/health")[0] == 200
        cluster.kill("node-1", "kv")
        assert call("GET", f"{first}/v1/secrets/a", token=token)[0] == 200, "another node's kv answers"
        cluster.restart("node-1", "kv")
        assert cluster.process("node-1", "kv").identity.is_alive()
    assert not processes_of(folder)


def test_a_taken_gateway_port_is_told_and_nothing_is_left(folder: Path) -> None:
    base = free_base(3)
    with socket.create_server(("127.0.0.1", base + 3)):
        refused = dev("up", "--data", str(folder), "--base-port", str(base), "--detach")
    assert refused.returncode == 1
    assert f"port {base + 3}, node-3's gateway, is taken" in refused.stderr
    assert not folder.exists()


def test_a_wrong_command_line_is_2(folder: Path) -> None:
    assert dev("up", "--nodes", "2", "--data", str(folder)).returncode == 2
    assert dev("up", "--data", str(folder), "--node", "node-1").returncode == 1
    assert not folder.exists()


def test_ctrl_c_ends_a_cluster_in_the_foreground(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "strongbox.dev",
        "up",
        "--nodes",
        "1",
        "--no-postgres",
        "--data",
        str(folder),
    ]
    command += ["--base-port", str(free_base(1))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout
        while not running.stdout.readline().startswith("ready"):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    assert not processes_of(folder)


def test_make_runs_demonstration_shows_all_three_ways_in_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "strongbox.dev.demo", "--base-port", str(free_base(3))]
    said = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout
        folder = Path(running.stdout.readline().split()[-2])
        while "Ctrl-C" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    assert said.count("hello") >= 3
    assert not processes_of(folder)
    assert not folder.exists()
