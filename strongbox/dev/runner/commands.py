"""`up`, `down` and `status`, without a command line around them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from strongbox.config import ConfigError
from strongbox.dev import layout, unseal
from strongbox.dev.layout import POSTGRES, Layout, LayoutError, Wishes
from strongbox.dev.processes import etcd
from strongbox.dev.processes.children import (
    Identity,
    StartError,
    dying_with_parent,
    end_of,
    stop_all,
    wait_until_gone,
)
from strongbox.dev.runner import runner_socket
from strongbox.dev.runner.runner import Interrupted, Runner, Say
from strongbox.gateway.configuration import ROOT

DEFAULT_FOLDER = Path(".strongbox")
_DOWN_PATIENCE = 30.0
# Runners that this process started: kept, so that one which ends can be reaped.
_runners: list[subprocess.Popen[bytes]] = []


class DevError(Exception):
    """It could not be done; the text says why."""


@contextmanager
def in_words() -> Iterator[None]:
    """What cannot be done becomes a DevError: a sentence that names what is in the way."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise DevError(what) from error
    except (runner_socket.Busy, LayoutError, StartError, ConfigError, LookupError, UnicodeError) as error:
        raise DevError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Up:
    """What `strongbox dev up` is asked for. `node`: this one alone. `owned`: ends when its starter ends."""

    folder: Path
    wishes: Wishes = field(default_factory=Wishes)
    unseal: bool = False
    node: str | None = None
    owned: bool = False


def up(asked: Up, say: Say, on_ready: Callable[[], None] = lambda: None) -> None:
    """Run the cluster here, until a signal; leaves no process. Raises DevError."""
    existed = os.path.lexists(asked.folder)
    try:
        with in_words():
            if asked.node and layout.load(asked.folder) is None:
                raise DevError(f"there is no cluster in {asked.folder}")
            with runner_socket.sole_runner(asked.folder):
                _run(layout.prepare(asked.folder, asked.wishes, asked.node), asked, say, on_ready)
    except Interrupted:
        return
    except DevError:
        if not existed:
            _forget_unused(asked.folder)
        raise


def _run(chosen: Layout, asked: Up, say: Say, on_ready: Callable[[], None]) -> None:
    nodes = _nodes_of(chosen, asked.node)
    warning = etcd.notice(etcd.find_etcd())
    if warning:
        say(warning)
    _note_runner(chosen.folder)
    chosen.certificates.ensure(chosen.node_ids, chosen.host_addresses)
    runner = Runner(chosen, say)
    try:
        runner.start(nodes)
        if asked.unseal:
            unseal.unseal_cluster(chosen)
        say(f"ready: {' '.join(chosen.gateway_url(node) for node in nodes if node != POSTGRES)}")
        on_ready()
        runner.watch()
    finally:
        runner.stop()


def _forget_unused(folder: Path) -> None:
    """A folder we made for a cluster that could not even be laid out."""
    if not (folder / "layout.json").exists():
        shutil.rmtree(folder, ignore_errors=True)


def up_detached(asked: Up) -> None:
    """Start a runner that stays, and return when every node answers. Raises DevError."""
    existed = os.path.lexists(asked.folder)
    log = asked.folder / "runner.log"
    with in_words():
        asked.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.touch(mode=0o600)
    reading, writing = os.pipe()
    request = json.dumps(asdict(asked), default=str)
    command = [sys.executable, "-m", "strongbox.dev.runner.detached", str(writing), request]
    with open(reading, encoding="utf-8") as told, log.open("ab") as output:
        process = subprocess.Popen(
            [*(dying_with_parent("TERM") if asked.owned else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
            start_new_session=True,
            cwd=ROOT,
        )
        os.close(writing)
        try:
            line = told.readline()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    _runners.append(process)
    answer = json.loads(line) if line else {"error": f"the runner ended; {log}:\n{end_of(log)}"}
    if "error" in answer:
        process.wait()
        if not existed:
            _forget_unused(asked.folder)
        raise DevError(answer["error"])


def start_node(folder: Path, node: str) -> bool:
    """Have a running runner start what is dead of a node; False when no runner runs. Raises DevError."""
    runner = _runner_of(folder)
    if runner is None or not runner.is_alive():
        return False
    known = _known(folder)
    _nodes_of(known, node)
    ask(folder, {"start": [node]})
    return True


def ask(folder: Path, request: dict[str, Any]) -> None:
    """Ask the runner. Raises DevError with its refusal."""
    try:
        answer = runner_socket.ask(folder, request)
    except OSError as error:
        raise DevError(f"the runner does not answer: {error}") from None
    if "error" in answer:
        raise DevError(str(answer["error"]))


def down(folder: Path) -> int:
    """Stop everything of the cluster in DIR, by pid and start time; returns how many there were."""
    known = read_cluster(folder)
    runner = _runner_of(folder)
    everything = [*([runner] if runner else []), *(each for _, _, each in processes(known))]
    living = [each for each in everything if each.is_alive()]
    if runner and runner.is_alive():
        runner.signal(signal.SIGTERM)
        wait_until_gone([runner], _DOWN_PATIENCE)
    # The runner stops all others; what is left was its orphan, or it was killed just now.
    stop_all([[(each, signal.SIGTERM) for each in everything if each.is_alive()]])
    _runners[:] = [runner for runner in _runners if runner.poll() is None]
    return len(living)


def status(folder: Path) -> list[dict[str, Any]]:
    """Every process of the cluster in DIR and whether it runs. Raises DevError when there is no cluster."""
    known = read_cluster(folder)
    if not known:
        raise DevError(f"there is no cluster in {folder}")
    return [
        {"node": node, **entry, "running": identity.is_alive()} for node, entry, identity in processes(known)
    ]


def rotate_certificates(folder: Path) -> int:
    """New keys and certificates for every process of the cluster in DIR; returns how many nodes there are.

    Running processes notice by themselves, within some seconds, and break nothing off. Raises DevError.
    """
    known = _known(folder)
    try:
        known.certificates.rotate(known.node_ids, addresses=known.host_addresses)
    except (OSError, ValueError) as error:
        raise DevError(f"the certificates cannot be renewed: {error}") from None
    return known.nodes


def read_cluster(folder: Path) -> dict[str, Any]:
    """DIR/cluster.json, or {}. Raises DevError when it cannot be read."""
    return _read_json(folder / "cluster.json")


def processes(known: dict[str, Any]) -> list[tuple[str, dict[str, Any], Identity]]:
    """(node, entry, identity) of all that cluster.json lists; PostgreSQL's node is `postgres`."""
    groups = [(node["id"], node["processes"]) for node in known.get("nodes", ())]
    groups.append((POSTGRES, (known.get("postgres") or {}).get("processes", ())))
    return [
        (node, entry, Identity(entry["pid"], entry["started"]))
        for node, entries in groups
        for entry in entries
    ]


def _note_runner(folder: Path) -> None:
    """Write down who runs the cluster, for `down` and `--node`."""
    me = Identity.of(os.getpid())
    layout.write_private_json(folder / "runner.json", {"pid": me.pid, "started": me.started})


def _runner_of(folder: Path) -> Identity | None:
    found = _read_json(folder / "runner.json")
    return Identity(**found) if found else None


def _read_json(file: Path) -> dict[str, Any]:
    with in_words():
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return found
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError:
            raise DevError(f"{file} is not what was written there") from None


def _known(folder: Path) -> Layout:
    with in_words():
        known = layout.load(folder)
    if known is None:
        raise DevError(f"there is no cluster in {folder}")
    return known


def _nodes_of(chosen: Layout, node: str | None) -> list[str]:
    if node is None:
        return [*([POSTGRES] if chosen.postgres else []), *chosen.node_ids]
    if node not in (*chosen.node_ids, POSTGRES):
        raise DevError(f"there is no {node}; there are {', '.join(chosen.node_ids)}")
    return [node]
