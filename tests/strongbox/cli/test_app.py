"""The command as a process: quick, honest in its help, silent about what it was given."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import TOKEN, World

GROUPS = ("operator", "kv", "token", "policy", "lease", "audit", "dev")


def strongbox(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "strongbox.cli", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGBOX_")}
    environment = {**kept, **environ, "COLUMNS": "120"}
    return subprocess.run(
        command, env=environment, input="", capture_output=True, text=True, timeout=30, check=False
    )


def test_help_names_every_group() -> None:
    answer = strongbox("--help")
    assert answer.returncode == 0
    assert all(group in answer.stdout for group in GROUPS)


def test_no_command_shows_the_help_and_is_a_wrong_command_line() -> None:
    answer = strongbox()
    assert answer.returncode == 2
    assert "operator" in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "words", [("nonsense",), ("kv", "nonsense"), ("kv", "get"), ("kv", "get", "a", "--nonsense")]
)
def test_a_wrong_command_line_is_two(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "dev"])
def test_every_group_and_every_command_has_help(run: Run, group: str) -> None:
    answer = run(group, "--help")
    assert answer.exit_code == 0
    assert "Commands" in answer.stdout


def test_the_local_clusters_commands_are_mounted_when_asked_for() -> None:
    answer = strongbox("dev", "--help")
    assert answer.returncode == 0
    assert "up" in answer.stdout


def test_help_loads_neither_grpc_nor_the_runner() -> None:
    code = (
        "import sys, strongbox.cli; print({'grpc', 'strongbox.dev.cli', 'cryptography'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_gateway_that_is_not_there_is_one_with_the_reason_and_no_traceback() -> None:
    answer = strongbox("operator", "status", STRONGBOX_ADDR="http://127.0.0.1:1")
    assert answer.returncode == 1
    assert "UNAVAILABLE" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_address_that_would_show_the_token_to_others_is_refused() -> None:
    answer = strongbox("kv", "list", STRONGBOX_ADDR="http://10.1.2.3:8201", STRONGBOX_TOKEN=TOKEN)
    assert answer.returncode == 2
    assert "https" in answer.stderr
    assert TOKEN not in answer.stderr


def test_the_whole_command_against_a_running_service(world: World) -> None:
    environment = {"STRONGBOX_ADDR": f"http://{world.target}", "STRONGBOX_TOKEN": TOKEN}
    answer = strongbox("operator", "status", "-o", "json", **environment)
    assert (answer.returncode, answer.stderr) == (0, "")
