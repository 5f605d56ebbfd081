"""`strongbox token`, `policy`, `lease` and `audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strongbox.crypto.ed25519 import SigningKey
from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import KEY_FILE, World

POLICY = '{"rules": [{"path": "secret/app/*", "capabilities": ["read", "write"]}]}'


def test_a_token_is_made_with_what_is_asked(run: Run, world: World) -> None:
    answer = run("token", "create", "--policy", "a", "--policy", "b", "--ttl", "1h", "--orphan", "-o", "json")
    assert json.loads(answer.stdout)["token"] == "sbt_child"
    asked = world.last()
    assert (list(asked.policies), asked.ttl.string_value, asked.orphan) == (["a", "b"], "1h", True)
    assert run("token", "create").exit_code == 0
    assert list(world.last().policies) == []


def test_tokens_are_ones_own_unless_an_accessor_is_named(run: Run) -> None:
    accessor = json.loads(run("token", "create", "-o", "json").stdout)["accessor"]
    assert json.loads(run("token", "lookup", "-o", "json").stdout)["accessor"] == "own"
    assert json.loads(run("token", "lookup", accessor, "-o", "json").stdout)["accessor"] == accessor
    assert json.loads(run("token", "renew", "-o", "json").stdout)["accessor"] == "own"
    assert run("token", "renew", accessor, "--increment", "1h").exit_code == 0
    assert run("token", "list").stdout.split() == [accessor]


def test_revoking_needs_to_say_whom(run: Run, world: World) -> None:
    assert run("token", "revoke").exit_code == 2
    assert run("token", "revoke", "acc", "--self").exit_code == 2
    assert world.asked == []
    assert run("token", "revoke", "acc").exit_code == 0
    assert run("token", "revoke", "--self").exit_code == 0
    assert world.revoked == ["acc", "own"]


def test_a_token_that_is_not_set_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRONGBOX_TOKEN")
    answer = run("kv", "get", "a")
    assert answer.exit_code == 1
    assert "STRONGBOX_TOKEN is not set" in answer.stderr


def test_a_policy_is_written_read_listed_and_deleted(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(POLICY, "utf-8-sig")
    assert run("policy", "write", "app", "--file", str(file)).exit_code == 0
    assert run("policy", "write", "other", said=POLICY).exit_code == 0
    rules = json.loads(run("policy", "read", "app", "-o", "json").stdout)["rules"]
    assert rules == json.loads(POLICY)["rules"]
    assert "secret/app/*" in run("policy", "read", "app").stdout
    assert run("policy", "list").stdout.split() == ["app", "other"]
    assert run("policy", "delete", "app").exit_code == 0
    assert run("policy", "read", "app").exit_code == 1


@pytest.mark.parametrize(
    "document",
    ["[]", "{}", '{"rules": {}}', '{"rules": [], "rule": []}', '{"name": "other", "rules": []}', "no json",
     '{"rules": [{"path": "secret/*", "capability": ["read"]}]}'],
)  # fmt: skip
def test_a_misspelt_policy_is_refused_before_anything_is_sent(run: Run, world: World, document: str) -> None:
    assert run("policy", "write", "app", said=document).exit_code == 2
    assert world.asked == []


def test_leases_are_read_listed_and_revoked(run: Run) -> None:
    assert json.loads(run("lease", "get", "l-1", "-o", "json").stdout)["state"] == "ACTIVE"
    table = run("lease", "list", "--path", "secret/a").stdout.splitlines()
    assert [line.split()[:3] for line in table] == [
        ["id", "state", "path"], *([f"l-{n}", "ACTIVE", "secret/a"] for n in (1, 2, 3)),
    ]  # fmt: skip
    assert run("lease", "revoke", "l-1").exit_code == 0
    assert run("lease", "list").exit_code == 2


def test_the_log_is_listed_as_table_and_json(run: Run, world: World) -> None:
    world.entries = 5
    assert len(run("audit", "list").stdout.splitlines()) == 6
    entries = json.loads(run("audit", "list", "--from", "3", "-o", "json").stdout)
    assert [entry["index"] for entry in entries] == [3, 4]
    assert run("audit", "export-key").stdout == KEY_FILE


def test_verify_is_strongbox_verify(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "0.jsonl"
    log.write_bytes(b"")
    assert run("audit", "verify", str(log)).exit_code == 1  # no log of an initialized cluster is empty
    assert run("audit", "verify", "--allow-empty", str(log)).exit_code == 0
    log.write_text("nonsense\n")
    tampered = run("audit", "verify", str(log))
    assert (tampered.exit_code, "first bad index 0" in tampered.stdout) == (1, True)
    assert run("audit", "verify", str(tmp_path / "nothing")).exit_code == 2


def test_the_log_is_followed_a_line_each(run: Run) -> None:
    told = run("audit", "tail", "--from", "0", "-o", "json")
    assert [json.loads(line)["index"] for line in told.stdout.splitlines()] == [0, 1, 2, 3, 4]
    assert told.exit_code == 1  # the fake ends it as a revoked token would


def test_a_checkpoint_is_kept_with_its_key_and_held_against_the_next(
    run: Run, world: World, tmp_path: Path
) -> None:
    key, note = tmp_path / "key.pem", tmp_path / "note"
    world.log.grow(4)
    first = run("audit", "checkpoint", "--public-key", str(key))
    assert (first.exit_code, "now kept there" in first.stderr) == (0, True)
    assert key.read_text() == run("audit", "public-key").stdout
    note.write_text(first.stdout)
    world.log.grow(9)
    again = run("audit", "checkpoint", "--public-key", str(key), "--since", str(note), "-o", "json")
    assert (again.exit_code, json.loads(again.stdout)["size"]) == (0, 9)
    assert run("audit", "prove", "3", "--public-key", str(key)).exit_code == 0
    world.log.key = SigningKey(b"x" * 32)
    other = run("audit", "checkpoint", "--public-key", str(key))
    assert (other.exit_code, "not signed with this key" in other.stderr) == (1, True)
    assert run("audit", "checkpoint", "--since", str(note)).exit_code == 2
    assert run("audit", "list", "--limit", "0").exit_code == 2
    assert run("audit", "rotate-key", "-o", "json").exit_code == 0
