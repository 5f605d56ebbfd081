"""The search itself is attacked: a search that finds nothing must mean something."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.canary import Canaries

SECRET = 'pässword "with" \\ odd/characters+42'
RAW = bytes(range(200, 232))


@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        json.dumps({"deep": [SECRET]}).encode(),
        SECRET.encode().hex().encode(),
        RAW,
        RAW.hex().upper().encode(),
        *(base64.b64encode(bytes(pad) + SECRET.encode() + b"tail") for pad in range(4)),
        *(base64.urlsafe_b64encode(b"x" * pad + RAW) for pad in range(4)),
        b"p%C3%A4ssword%20%22with%22%20%5C%20odd/characters%2B42",
    ],
)
@pytest.mark.parametrize("offset", [0, 5, (1 << 20) - 7, 3 << 20])
def test_a_secret_is_found_in_every_form_and_across_the_borders_of_chunks(
    content: bytes, offset: int, tmp_path: Path
) -> None:
    canaries = Canaries({"text": SECRET, "raw": RAW})
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "db").write_bytes(bytes(offset) + content + bytes(100))
    (tmp_path / "clean").write_bytes(os.urandom(1000))
    found = canaries.search([tmp_path])
    assert found.files == 2
    assert {Path(one.where).name for one in found.sightings} == {"db"}
    with pytest.raises(AssertionError, match="db"):
        found.require_clean(least_files=1)


def test_a_secret_is_found_in_a_command_line_an_environment_and_a_deleted_open_file(tmp_path: Path) -> None:
    program = (
        f"import os; f = open({str(tmp_path / 'gone')!r}, 'wb'); f.write(b'canary-in-a-file'); f.flush();"
        f"os.unlink(f.name); print('ready', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "canary-in-argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"SECRET": "canary-in-env"},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        names = ["canary-in-argv", "canary-in-env", "canary-in-a-file"]
        found = Canaries({name: name for name in names}).search([], [child.pid])
        assert {one.what for one in found.sightings} == set(names)
    finally:
        child.communicate(b"\n")


def test_exempt_files_are_passed_over_and_an_empty_search_is_not_clean(tmp_path: Path) -> None:
    (tmp_path / "init.json").write_text(SECRET)
    found = Canaries({"text": SECRET}).search([tmp_path], exempt=[tmp_path / "init.json"])
    assert not found.sightings
    with pytest.raises(AssertionError, match="only 0 files"):
        found.require_clean(least_files=1)


def test_a_report_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "db").write_text(SECRET)
    assert SECRET not in str(Canaries({"text": SECRET}).search([tmp_path]).sightings)


def test_a_secret_too_short_to_mean_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Canaries({"pin": "1234567"})
