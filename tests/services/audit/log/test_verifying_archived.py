"""`strongbox-verify` over an archive and what is left of the log, together and apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.audit.log.archiving import Archive
from strongbox.audit_log import archive_marker as markers
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_log.scan import read_file
from strongbox.audit_log.verify_command import main
from strongbox.crypto.ed25519 import to_pem
from tests.services.audit.log.archived_logs import archive_of, archived, log_of, note_of
from tests.services.audit.logs import KEYS
from tests.services.audit.producers import SIGNING


def test_archive_and_rest_verify_together_and_the_rest_from_its_marker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(700))
    stored = sorted(map(str, (tmp_path / "archive").glob("*.jsonl")))
    rest = sorted(map(str, (tmp_path / "log").glob("*.jsonl")))
    for name, text in {"key": format_keys(KEYS), "pem": to_pem(SIGNING.public), "old": note_of(9)}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "new").write_text(note_of(800))
    keys, public = ["--key-file", str(tmp_path / "key")], ["--public-key", str(tmp_path / "pem")]
    old, new = ([*public, "--checkpoint", str(tmp_path / name)] for name in ("old", "new"))
    for proofs in ([], keys, old, new, [*keys, *new]):
        assert main([*stored, *rest, *proofs]) == 0, proofs
        assert "intact: 800 entries, head" in capsys.readouterr().out
    for proofs in ([], keys, new, [*keys, *new]):
        assert main([*rest, *proofs]) == 0, proofs
        assert f"the first {log.first} are archived and not checked" in capsys.readouterr().out
    assert main([*rest, *old]) == 2
    assert "needs the archive" in capsys.readouterr().err
    # one of them not moved away yet
    (tmp_path / "log" / Path(stored[2]).name).write_bytes(Path(stored[2]).read_bytes())
    assert main([*stored, *sorted(map(str, (tmp_path / "log").glob("*.jsonl"))), *keys]) == 0
    assert main([*stored[:2], *rest]) == 1  # a segment in between is missing
    assert main(stored) == 0 and main(stored + new) == 1  # the archive alone is a shorter log
    file = tmp_path / "log" / markers.NAME
    file.write_bytes(file.read_bytes().replace(b'"mac":"', b'"mac":"0')[:-4] + b'"}\n')
    assert main([*rest, *keys]) == 1


def test_logs_of_several_replicas_are_told_apart_though_their_files_have_the_same_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is longer, one has archived: none goes on with another, and none is skipped for being the same."""
    (tmp_path / "key").write_text(format_keys(KEYS))
    for name, size in {"one": 700, "two": 800, "three": 800}.items():
        log_of(tmp_path / name, size)
    for name in ("four", "five"):
        log = log_of(tmp_path / name)
        Archive(tmp_path / "archive", name).move(log, log.firsts[3], KEYS, note_of(700))
    names = ("one", "two", "three", "four", "five")
    files = [str(file) for name in names for file in sorted((tmp_path / name).glob("*.jsonl"))]
    assert main([*files, "--key-file", str(tmp_path / "key")]) == 0
    said = capsys.readouterr().out
    assert (said.count("intact: 700 entries"), said.count("intact: 800 entries")) == (1, 4), said


def test_a_marker_that_is_not_signed_yet_is_no_sign_of_tampering(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path / "log")
    archive_of(tmp_path).move(log, log.firsts[3], KEYS, note_of(700))
    file = tmp_path / "log" / markers.NAME
    made_anew = replace(read_file(file), checkpoint="").signed(KEYS)
    for name in (markers.NAME, markers.COPY):
        (tmp_path / "log" / name).write_bytes(made_anew.pack())
    (tmp_path / "pem").write_text(to_pem(SIGNING.public))
    (tmp_path / "new").write_text(note_of(800))
    proofs = ["--public-key", str(tmp_path / "pem"), "--checkpoint", str(tmp_path / "new")]
    rest = sorted(map(str, (tmp_path / "log").glob("*.jsonl")))
    assert main([*rest, *proofs]) == 2
    assert "name the archive's files" in capsys.readouterr().err
    assert main([*sorted(map(str, (tmp_path / "archive").glob("*.jsonl"))), *rest, *proofs]) == 0


def test_what_is_left_is_verified_from_the_copy_of_its_marker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, _ = archived(tmp_path)
    (log.folder / markers.NAME).write_bytes(b"")
    (tmp_path / "key").write_text(format_keys(KEYS))
    files = sorted(map(str, log.folder.glob("*.jsonl")))
    assert main([*files, "--key-file", str(tmp_path / "key")]) == 0
    assert f"the first {log.first} are archived and not checked" in capsys.readouterr().out
