"""`strongbox-verify` as a command: exit status and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from strongbox.audit_log.key_file import format_keys, parse_keys
from strongbox.audit_log.verify_command import main
from tests.services.audit.logs import KEYS, chain

LINES = [one.line() for one in chain(40)]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(format_keys(KEYS))
    return file


def write(path: Path, lines: list[bytes]) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)


def test_an_intact_log_exits_0(tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([write(tmp_path / "log", LINES), "--key-file", str(key_file)]) == 0
    assert "40 entries" in capsys.readouterr().out


def test_segments_and_several_replicas_are_told_apart(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [write(tmp_path / "a0", LINES[:25]), write(tmp_path / "a1", LINES[25:])]
    other = [write(tmp_path / "b0", LINES)]
    assert main([*one, *other, "--key-file", str(key_file)]) == 0
    assert capsys.readouterr().out.count("40 entries") == 2


def test_a_missing_segment_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / "a0", LINES[:10]), write(tmp_path / "a2", LINES[20:])]
    assert main(files) == 1
    assert "first bad index 10" in capsys.readouterr().out


def test_a_changed_entry_exits_1_and_names_the_index(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*LINES]
    lines[17] = lines[17].replace(b"alice", b"bob")
    assert main([write(tmp_path / "log", lines), "--key-file", str(key_file)]) == 1
    assert "first bad index 17" in capsys.readouterr().out


def test_without_a_key_the_answer_says_what_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([write(tmp_path / "log", LINES)]) == 0
    assert "links only" in capsys.readouterr().out


def test_a_log_cut_within_a_line_is_tampered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([write(tmp_path / "log", [*LINES[:5], LINES[5][:30]])]) == 1
    assert "first bad index 5" in capsys.readouterr().out


def test_one_endless_line_does_not_eat_the_memory(tmp_path: Path) -> None:
    assert main([write(tmp_path / "log", [b"x" * (3 << 20)])]) == 1


def test_a_file_that_is_not_there_and_a_wrong_key_file_are_usage_errors(tmp_path: Path) -> None:
    log = write(tmp_path / "log", LINES)
    assert main([str(tmp_path / "none")]) == 2
    for text in ("", "1:abcd\n", "1:zz\n", "2:" + "00" * 32, "1:" + "00" * 32 + "\n1:" + "00" * 32):
        assert main([log, "--key-file", write(tmp_path / "bad", [text.encode()])]) == 2
    assert main([log, "--key-file", write(tmp_path / "bad", [b"\xff\xfe"])]) == 2


def test_the_exported_key_reads_back() -> None:
    assert parse_keys(format_keys(KEYS)) == KEYS
    assert parse_keys(format_keys(KEYS).replace("\n", "\r\n")) == KEYS


def test_it_runs_without_grpc_and_usage_errors_exit_2() -> None:
    look = "sys.exit(any(m.split('.')[0] == 'grpc' for m in sys.modules))"
    code = f"import sys, strongbox.audit_log.verify_command; {look}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    run = subprocess.run(
        [sys.executable, "-m", "strongbox.audit_log.verify_command"], capture_output=True, check=False
    )
    assert run.returncode == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_an_emptied_log_is_an_alarm(
    tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, flags = write(tmp_path / "log", []), ["-o", "json"] if as_json else []
    assert main([empty, *flags]) == 1
    assert "empty" in capsys.readouterr().out
    assert main([empty, write(tmp_path / "log2", []), *flags]) == 1
    assert main([empty, "--allow-empty", *flags]) == 0
    assert main([empty, write(tmp_path / "log3", LINES), *flags]) == 0  # a file after it has the entries
