"""What `make quick` leaves out is found, and nothing that it runs starts what it promises not to."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.started import program_of, starts

ROOT = Path(__file__).resolve().parents[2]


class EtcdCluster:
    """Has the name of one that starts etcd, and starts none."""


def plain(cluster: EtcdCluster) -> EtcdCluster:
    return cluster


def direct() -> None:
    EtcdCluster()


async def inner() -> Any:
    def deeper() -> EtcdCluster:
        return EtcdCluster()

    return deeper


@contextlib.contextmanager
def helper() -> Iterator[None]:
    direct()
    yield


def by_a_helper() -> None:
    with helper():
        by_a_helper()


@pytest.mark.parametrize("function", [direct, inner, helper, by_a_helper])
def test_who_names_a_starter_itself_or_in_his_file_is_found(function: Any) -> None:
    assert starts(function)


@pytest.mark.parametrize("function", [plain, print, Path, None])
def test_who_takes_what_others_have_started_or_is_no_code_is_not(function: Any) -> None:
    assert not starts(function)


@pytest.fixture
def started() -> EtcdCluster:
    return EtcdCluster()


@pytest.fixture
def connected(started: EtcdCluster) -> EtcdCluster:
    return started


def _is_marked(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("processes") is not None


def test_the_fixtures_of_fixtures_mark_a_test(connected: EtcdCluster, request: pytest.FixtureRequest) -> None:
    assert _is_marked(request)


def test_its_own_code_marks_a_test(request: pytest.FixtureRequest) -> None:
    direct()
    assert _is_marked(request)


@pytest.mark.cluster
def test_who_needs_a_cluster_is_marked(request: pytest.FixtureRequest) -> None:
    assert _is_marked(request)


def test_others_are_not_marked(request: pytest.FixtureRequest) -> None:
    assert not _is_marked(request)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (["setpriv", "--pdeathsig", "KILL", "some/bin/etcd", "--name=m0"], "some/bin/etcd"),
        ([b"envoy", b"--config-path", b"envoy.yaml"], "envoy"),
        ([Path("pginstall/bin/postgres"), "-D", "data"], "pginstall/bin/postgres"),
        ([sys.executable, "-m", "services.kv"], "services.kv"),
        ([sys.executable, "-m", "strongbox.dev", "up", "--nodes", "1"], "strongbox.dev up"),
        ([sys.executable, "-m", "strongbox.dev", "status"], ""),
        ([sys.executable, "-c", "import services.kv"], ""),
        (["etcd", "--version"], ""),
        ("kubectl", ""),
    ],
)
def test_a_program_is_told_by_its_command(command: Any, program: str) -> None:
    assert program_of(command) == program


@pytest.mark.parametrize("command", [["no-such-folder/etcd"], [sys.executable, "-m", "services.kv"]])
def test_who_is_not_marked_starts_none(command: list[str]) -> None:
    with pytest.raises(pytest.fail.Exception, match="make quick"):
        subprocess.Popen(command)


async def test_who_is_not_marked_starts_none_with_asyncio_either() -> None:
    with pytest.raises(pytest.fail.Exception, match="make quick"):
        await asyncio.create_subprocess_exec("no-such-folder/etcd")


@pytest.mark.processes
def test_who_is_marked_may() -> None:
    with pytest.raises(FileNotFoundError):
        subprocess.Popen(["no-such-folder/etcd"])


def test_make_test_leaves_out_the_heavy_alone() -> None:
    """What `make quick` leaves out is run by `make test`: whoever changes that changes this line."""
    unit = (ROOT / "Makefile").read_text("utf-8").partition("\nunit:")[2].partition("\n\n")[0]
    assert 'pytest tests -m "not heavy"' in unit
