"""`strongbox kv`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import World

SECRET = "hunter2hunter2"


def test_a_value_comes_from_a_pipe_less_the_line_end_that_echo_adds(run: Run, world: World) -> None:
    assert run("kv", "put", "app/db", said=f"{SECRET}\n").exit_code == 0
    assert world.last().value == SECRET
    run("kv", "put", "app/db", said=f"{SECRET}\r\n")
    assert world.last().value == SECRET
    run("kv", "put", "app/db", said=SECRET)
    assert world.last().value == SECRET


@pytest.mark.parametrize("text", ["-----BEGIN-----\nkey\n-----END-----\n", "a\r\nb\r\n", f"{SECRET}\n\n"])
def test_text_of_several_lines_keeps_its_line_ends(run: Run, world: World, text: str) -> None:
    assert run("kv", "put", "app/key", said=text).exit_code == 0
    assert world.last().value == text


@pytest.mark.parametrize("raw", [b"\xff\x00\x0a", b"\x0d\x0a", b"\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("way", [(), ("--file", "-"), ("--file",)])
def test_bytes_are_stored_exactly_however_they_come(
    run: Run, world: World, tmp_path: Path, raw: bytes, way: tuple[str, ...]
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(raw)
    words = ("--file", str(file)) if way == ("--file",) else way
    assert run("kv", "put", "a", "--binary", *words, said=raw).exit_code == 0
    assert world.last().binary == raw


@pytest.mark.parametrize(
    "words",
    [
        ("kv", "put", "a"),
        ("kv", "put", "a", "--binary"),
        ("user", "write", "alice"),
        ("login", "alice"),
        ("operator", "unseal"),
        ("postgres", "connection", "write", "c", "--dsn", "postgresql://h/d"),
    ],
)
def test_an_empty_pipe_is_refused(run: Run, world: World, words: tuple[str, ...]) -> None:
    answer = run(*words)
    assert (answer.exit_code, world.asked) == (2, [])
    assert "nothing came through the pipe" in answer.stderr


def test_an_empty_value_can_be_meant(run: Run, world: World) -> None:
    assert run("kv", "put", "a", "--file", "-").exit_code == 0
    assert world.last().value == ""


def test_a_value_from_a_file_is_stored_as_it_is(run: Run, world: World, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(b"line\r\n\n")
    assert run("kv", "put", "app/key", "--file", str(file)).exit_code == 0
    assert world.last().value == "line\r\n\n"


def test_a_json_object_is_stored_as_data(run: Run, world: World, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"user": "a", "port": 5432}')
    assert run("kv", "put", "app/db", "--data-file", str(file)).exit_code == 0
    for words in (("kv", "get", "app/db", "-o", "json"), ("-o", "json", "kv", "get", "app/db")):
        answer = run(*words)
        assert json.loads(answer.stdout)["data"] == {"user": "a", "port": 5432}


@pytest.mark.parametrize("document", [f'{{"a": "{SECRET}"', f'["{SECRET}"]', f'{{"{SECRET}": NaN}}', "\xff"])
def test_a_document_that_is_no_json_object_is_refused_and_not_quoted(
    run: Run, world: World, document: str
) -> None:
    answer = run("kv", "put", "a", "--data-file", "-", said=document.encode("latin-1"))
    assert answer.exit_code == 2
    assert SECRET not in answer.output
    assert world.asked == []


@pytest.mark.parametrize("words", [(f"password={SECRET}",), (SECRET,), (SECRET, "more")])
def test_a_value_on_the_command_line_is_refused_with_the_reason_and_not_quoted(
    run: Run, world: World, words: tuple[str, ...]
) -> None:
    answer = run("kv", "put", "app/db", *words)
    assert answer.exit_code == 2
    assert "never goes on the command line" in answer.stderr
    assert SECRET not in answer.output
    assert world.asked == []


def test_bytes_need_to_be_said_so_and_come_back_byte_for_byte(run: Run) -> None:
    raw = b"\x00\xff\n\n"
    assert run("kv", "put", "a", "--file", "-", said=raw).exit_code == 2
    assert run("kv", "put", "a", "--binary", "--file", "-", said=raw).exit_code == 0
    assert run("kv", "get", "a", "--raw").stdout_bytes == raw
    assert base64.b64decode(json.loads(run("kv", "get", "a", "-o", "json").stdout)["binary"]) == raw


def test_get_prints_a_table_or_json_with_rests_names(run: Run) -> None:
    run("kv", "put", "app/db", said=SECRET)
    table = run("kv", "get", "app/db")
    assert f"value       {SECRET}" in table.stdout
    answer = json.loads(run("kv", "get", "app/db", "-o", "json").stdout)
    assert answer == {
        "path": "app/db", "value": SECRET, "version": 1, "created_at": "2023-11-14T22:13:20Z",
        "lease": {"id": "lease-1", "ttl": 60, "expires_at": "2023-11-14T22:13:20Z"}, "revision": "5",
    }  # fmt: skip


def test_raw_prints_the_value_alone(run: Run) -> None:
    run("kv", "put", "a", said=SECRET)
    assert run("kv", "get", "a", "--raw").stdout == SECRET


def test_cas_and_ttl_are_passed_on(run: Run, world: World) -> None:
    assert run("kv", "put", "a", "--cas", "0", "--ttl", "90s", said="x").exit_code == 0
    assert (world.last().cas, world.last().ttl.string_value) == (0, "90s")
    refused = run("kv", "put", "a", "--cas", "0", said="x")
    assert refused.exit_code == 1
    assert "VERSION_MISMATCH" in refused.stderr


def test_what_is_too_large_is_refused_here(run: Run, world: World) -> None:
    assert run("kv", "put", "a", said="x" * (1 << 20) + "xx").exit_code == 2
    assert world.asked == []


def test_names_are_listed_one_a_line_over_all_pages(run: Run) -> None:
    for name in "abc":
        run("kv", "put", name, said="x")
    assert run("kv", "list").stdout.split() == ["a", "b", "c"]
    assert json.loads(run("kv", "list", "-r", "-o", "json").stdout) == ["a", "b", "c"]


def test_versions_are_deleted_undeleted_and_destroyed(run: Run, world: World) -> None:
    assert run("kv", "delete", "a").exit_code == 0
    assert list(world.last().versions) == []
    assert run("kv", "undelete", "a", "-n", "1", "-n", "2").exit_code == 0
    assert list(world.last().versions) == [1, 2]
    assert run("kv", "destroy", "a", "--version", "2").exit_code == 0
    assert run("kv", "destroy", "a").exit_code == 2


def test_metadata_is_read_changed_and_deleted(run: Run, world: World, tmp_path: Path) -> None:
    assert json.loads(run("kv", "metadata", "get", "a", "-o", "json").stdout)["custom"] == {"team": "a"}
    custom = tmp_path / "custom.json"
    custom.write_text('{"team": "b"}')
    assert run("kv", "metadata", "set", "a", "--cas-required", "--custom-file", str(custom)).exit_code == 0
    assert (world.last().cas_required, dict(world.last().custom)) == (True, {"team": "b"})
    custom.write_text('{"team": 1}')
    assert run("kv", "metadata", "set", "a", "--custom-file", str(custom)).exit_code == 2
    assert run("kv", "metadata", "delete", "a").exit_code == 0


def test_a_path_that_is_not_canonical_is_a_wrong_command_line(run: Run, world: World) -> None:
    answer = run("kv", "get", "a//b")
    assert (answer.exit_code, world.asked) == (2, [])
    assert "INVALID_PATH" in answer.stderr


def test_a_file_that_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    answer = run("kv", "put", "a", "--file", str(tmp_path / "nothing"))
    assert answer.exit_code == 2
    assert "No such file" in answer.stderr


def test_changes_are_printed_a_line_each_until_the_watch_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.client.kv._REOPEN", 0.0)
    answer = run("kv", "watch", "app", "-o", "json")
    assert [json.loads(line)["path"] for line in answer.stdout.splitlines()] == list("abcde")
    assert json.loads(answer.stdout.splitlines()[0]) == {
        "path": "a", "version": 1, "kind": "WRITTEN", "revision": "1",
    }  # fmt: skip
    assert answer.exit_code == 1
    assert "UNAUTHENTICATED" in answer.stderr
    assert run("kv", "watch", "app", "--from-revision", "2").stdout.splitlines()[0] == "b  1  WRITTEN  2"
