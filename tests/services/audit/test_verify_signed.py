"""`strongbox-verify` with a public key and checkpoints alone: what is caught, and at which index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.audit.log.segments import Segments
from strongbox.audit_log.checkpoint import Checkpoint, sign
from strongbox.audit_log.key_file import format_keys
from strongbox.audit_log.merkle import Frontier, leaf_hash
from strongbox.audit_log.verify_command import main
from strongbox.crypto.ed25519 import SigningKey, to_pem
from tests.services.audit.logs import KEYS, chain
from tests.services.audit.producers import ORIGIN, SIGNING

ENTRIES = chain(40)
LINES = [one.line() for one in ENTRIES]


def note_of(size: int, lines: list[bytes] = LINES) -> str:
    frontier = Frontier()
    for line in lines[:size]:
        frontier.add(leaf_hash(line))
    return sign(Checkpoint(ORIGIN, size, frontier.root()), SIGNING)


class Desk:
    """A folder with a public key, a key file and notes; runs the command on a log."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.write("public", to_pem(SIGNING.public))
        self.write("key", format_keys(KEYS))

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def verify(
        self, lines: list[bytes], *notes: str, more: tuple[str, ...] = ()
    ) -> tuple[int, dict[str, Any]]:
        (self.folder / "log").write_bytes(b"".join(lines))
        flags = [
            part
            for number, note in enumerate(notes)
            for part in ("--checkpoint", self.write(f"n{number}", note))
        ]
        code = main(
            [
                str(self.folder / "log"),
                "--public-key",
                str(self.folder / "public"),
                *flags,
                *more,
                "-o",
                "json",
            ]
        )
        return code, json.loads(self._capsys.readouterr().out or "{}")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_an_intact_log_is_verified_without_any_secret(desk: Desk) -> None:
    for size in (1, 25, 40):
        code, told = desk.verify(LINES, note_of(size))
        assert (code, told["intact"], told["logs"][0]["entries"]) == (0, True, 40)
    code, told = desk.verify(LINES, note_of(25), note_of(40), more=("--key-file", str(desk.folder / "key")))
    assert (code, told["checked"]) == (0, ["form", "links", "hmac", "checkpoint"])


@pytest.mark.parametrize("left", [0, 1, 24, 39])
def test_a_log_cut_off_or_rolled_back_is_caught_where_it_ends(desk: Desk, left: int) -> None:
    code, told = desk.verify(LINES[:left], note_of(40))
    assert (code, told["first_bad_index"]) == (1, left)
    assert "40" in told["reason"]


def test_several_checkpoints_narrow_down_where_a_log_was_changed(desk: Desk) -> None:
    changed = [*LINES]
    changed[17] = replace(ENTRIES[17], accessor="mallory").line()
    code, told = desk.verify(changed, note_of(40))
    assert (code, told["first_bad_index"]) == (1, 0)
    code, told = desk.verify(changed, note_of(40), note_of(10), note_of(20))
    assert (code, told["first_bad_index"]) == (1, 10)
    assert "up to 19" in told["reason"]


def test_the_row_of_hashes_beside_the_log_tells_exactly(tmp_path: Path, desk: Desk) -> None:
    log = Segments(tmp_path / "audit", segment_bytes=4000)
    log.append(ENTRIES)
    log.close()
    files = sorted((tmp_path / "audit").glob("*.jsonl"))
    files[2].write_bytes(files[2].read_bytes().replace(b"request-25", b"request-xx"))
    note = desk.write("note", note_of(40))
    arguments = [*map(str, files), "--public-key", str(desk.folder / "public"), "--checkpoint", note]
    assert main(arguments) == 1
    assert "first bad index 25:" in desk._capsys.readouterr().out
    (tmp_path / "audit" / "audit.hashes").write_bytes(bytes(80 * 32))  # a row that was forged is not believed
    assert main(arguments) == 1
    assert "first bad index 0:" in desk._capsys.readouterr().out


def test_a_log_written_anew_with_the_hmac_key_is_caught(desk: Desk) -> None:
    rewritten = [one.line() for one in chain(41)][1:]
    anew = [*LINES[:39], LINES[39].replace(b'"ok"', b'"no"')]
    assert desk.verify(anew, note_of(40))[0] == 1
    assert desk.verify(rewritten, note_of(40))[0] == 1


def test_an_edited_checkpoint_or_anothers_is_caught(desk: Desk) -> None:
    note = note_of(40)
    for edited in (
        note.replace("\n40\n", "\n39\n"), note.replace("strongbox", "strangebox"), note[:-3], note[:20],
        sign(Checkpoint(ORIGIN, 40, bytes(32)), SigningKey(bytes(32))), "nonsense",
    ):  # fmt: skip
        code, told = desk.verify(LINES, edited)
        assert (code, told["intact"], told["first_bad_index"]) == (1, False, None)


def test_answers_saved_as_they_came_are_taken_as_well(desk: Desk) -> None:
    desk.write("public", json.dumps({"public_key": to_pem(SIGNING.public), "verifier_key": "x"}))
    key = desk.write("key", json.dumps({"key": format_keys(KEYS)}))
    assert desk.verify(LINES, json.dumps({"checkpoint": note_of(40)}), more=("--key-file", key))[0] == 0


def test_each_of_several_logs_is_held_against_the_checkpoint(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"".join(LINES[:30]))
    code, told = desk.verify(LINES, note_of(40), more=(str(tmp_path / "other"),))
    assert (code, told["first_bad_index"]) == (1, 30)


def test_wrong_usage_exits_2(desk: Desk, tmp_path: Path) -> None:
    log = desk.write("log", "")
    note, public = desk.write("note", note_of(0)), str(desk.folder / "public")
    for arguments in (["--public-key", public], ["--checkpoint", note]):
        with pytest.raises(SystemExit) as ended:
            main([log, *arguments])
        assert ended.value.code == 2
    junk = desk.write("junk", "junk")
    assert main([log, "--public-key", junk, "--checkpoint", note]) == 2
    assert main([log, "--public-key", public, "--checkpoint", str(tmp_path / "none")]) == 2
    assert main([log, "--public-key", public, "--checkpoint", desk.write("json", "{}")]) == 2
    second = [one.line() for one in chain(2)]
    (tmp_path / "two").write_bytes(b"".join(second))
    assert main([log, "--public-key", public, "--checkpoint", note]) == 0
