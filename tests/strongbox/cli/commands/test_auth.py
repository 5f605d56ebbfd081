"""`strongbox user`, `approle`, `kubernetes`, `login`, and policies explained and tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import PASSWORD, World

RULES = [{"path": "secret/app/*", "capabilities": ["read"]}]


@pytest.mark.parametrize("said", [PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"])
def test_a_password_comes_from_a_pipe_or_a_file(run: Run, world: World, tmp_path: Path, said: str) -> None:
    assert run("user", "write", "alice", "--policy", "app", "--token-ttl", "1h", said=said).exit_code == 0
    assert (world.last().password, list(world.last().policies)) == (PASSWORD, ["app"])
    file = tmp_path / "password"
    file.write_bytes(said.encode())
    assert run("user", "write", "alice", "--file", str(file)).exit_code == 0
    assert world.last().password == PASSWORD
    assert run("user", "write", "alice", "--keep-password").exit_code == 0
    assert not world.last().HasField("password")


def test_no_secret_is_taken_from_the_command_line(run: Run, world: World) -> None:
    for words in (
        ("user", "write", "alice", "pw"),
        ("login", "alice", "pw"),
        ("login", "--approle", "r", "a", "b"),
    ):
        answer = run(*words)
        assert answer.exit_code == 2
        assert "pw" not in answer.output
    assert world.asked == []


def test_users_approles_and_roles_are_read_listed_and_deleted(run: Run, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    for words in (
        ("user", "read", "a"), ("user", "delete", "a"),
        ("approle", "write", "a", "--bound-cidr", "10.0.0.0/8"),
        ("approle", "read", "a"), ("approle", "delete", "a"), ("approle", "secret-id", "create", "a"),
        ("approle", "secret-id", "revoke", "a", "acc"), ("kubernetes", "config", "read"),
        ("kubernetes", "config", "write", "--host", "https://a", "--ca-file", str(ca)),
        ("kubernetes", "role", "write", "a", "--service-account", "x", "--namespace", "y"),
        ("kubernetes", "role", "read", "a"), ("kubernetes", "role", "delete", "a"),
    ):  # fmt: skip
        assert run(*words).exit_code == 0, words
    for words in (("user", "list"), ("approle", "list"), ("kubernetes", "role", "list")):
        assert run(*words).stdout.split() == ["a", "b", "c"]


def test_a_login_prints_the_token_and_sends_none(run: Run, world: World) -> None:
    assert run("login", "alice", "--token-only", said=f"{PASSWORD}\n").stdout == "sb.login\n"
    assert "authorization" not in world.metadata
    assert (
        json.loads(run("login", "--approle", "r", "-o", "json", said="sbs.x").stdout)["token"] == "sb.login"
    )
    assert (world.last().role_id, world.last().secret_id) == ("r", "sbs.x")
    assert run("login", "--kubernetes", "web", said="jwt").exit_code == 0
    assert (world.last().role, world.last().jwt) == ("web", "jwt")


def test_a_refused_login_says_so_and_nothing_of_a_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRONGBOX_TOKEN")
    answer = run("login", "alice", said="wrong")
    assert answer.exit_code == 1
    assert "the login was refused" in answer.stderr
    assert "STRONGBOX_TOKEN" not in answer.stderr


@pytest.mark.parametrize("words", [(), ("alice", "--approle", "r"), ("--approle", "r", "--kubernetes", "k")])
def test_a_login_is_one_of_three(run: Run, world: World, words: tuple[str, ...]) -> None:
    assert run("login", *words, said="x").exit_code == 2
    assert world.asked == []


def test_explaining_exits_as_it_decides(run: Run, world: World) -> None:
    assert run("policy", "explain", "secret/app/x", "read").exit_code == 0
    assert world.last().accessor == "own"
    answer = run("policy", "explain", "secret/app/x", "write", "--policy", "app", "-o", "json")
    assert (answer.exit_code, json.loads(answer.stdout)["missing"]) == (1, "write")


def suite(folder: Path, **changes: Any) -> str:
    document = {
        "policies": {"app": "app.json", "ops": {"rules": [{"path": "sys/*", "capabilities": ["read"]}]}},
        "tokens": {"web": ["app", "default"], "both": ["app", "OPS"], "admin": ["root"]},
        "cases": [
            ["web", "secret/app/db", "read", "allow"], ["web", "secret/app/db", "write", "deny"],
            ["web", "auth/tokens/self", "read", "allow"], ["both", "sys/seal", "read", "allow"],
            ["admin", "sys/seal", "sudo", "allow"],
        ],
        **changes,
    }  # fmt: skip
    (folder / "app.json").write_text(json.dumps({"name": "app", "rules": RULES}))
    file = folder / "suite.json"
    file.write_text(json.dumps(document))
    return str(file)


def test_policies_in_files_are_tested_against_a_table(run: Run, world: World, tmp_path: Path) -> None:
    answer = run("policy", "test", suite(tmp_path))
    assert (answer.exit_code, "5 passed, 0 failed" in answer.stderr) == (0, True)
    wrong = suite(
        tmp_path, cases=[["web", "secret/app/db", "write", "allow"], ["web", "secret/x", "read", "deny"]]
    )
    answer = run("policy", "test", wrong, "-o", "json")
    assert answer.exit_code == 1
    assert [row[""] for row in json.loads(answer.stdout)] == ["FAILED", ""]
    assert json.loads(answer.stdout)[0]["rule"] == "secret/app/*"
    assert world.asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"cases": []}, {"cases": [["web", "secret/a", "read"]]},
        {"cases": [["who", "secret/a", "read", "deny"]]},
        {"cases": [["web", "secret//a", "read", "deny"]]}, {"cases": [["web", "secret/a", "fly", "deny"]]},
        {"cases": [["web", "secret/a", "read", "perhaps"]]}, {"tokens": {"web": ["missing"]}}, {"more": 1},
        {"tokens": {"web": []}}, {"policies": {"root": {"rules": []}}}, {"policies": {"app": "nowhere.json"}},
        {"policies": {"app": {"rules": []}, "App": {"rules": []}}}, {"policies": {"app": 5}},
        {"policies": {"app": {"rules": [{"path": "app/*", "capabilities": ["read"]}]}}},
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_no_test(run: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert run("policy", "test", suite(tmp_path, **changes)).exit_code == 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ('{"path": "app/*", "capabilities": ["read"]}', "no path begins so"),
        ('{"path": "secret/a*b", "capabilities": ["read"]}', "only at the end"),
        ('{"path": "secret/a", "capabilities": ["reed"]}', "capabilities are"),
        ('{"path": "secret/app/*", "capabilities": ["write"]}', "same path"),
        ('{"path": "secret/a", "capability": ["read"]}', "nothing else"),
        ('{"path": "secret/a", "capabilities": [5]}', "words"),
    ],
)
def test_a_mistake_in_a_policy_is_told_by_its_line(run: Run, world: World, rule: str, reason: str) -> None:
    first = '{"path": "secret/app/*",\n    "capabilities": ["read"]}'
    text = f'{{\n  "name": "app",\n  "rules": [\n    {first},\n    {rule}\n  ]\n}}\n'
    answer = run("policy", "write", "app", said=text)
    assert answer.exit_code == 2
    assert "the policy:6: rule 1: " in answer.stderr
    assert reason in answer.stderr
    assert world.asked == []
