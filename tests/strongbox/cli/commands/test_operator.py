"""`strongbox operator`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strongbox.errors import NoQuorum
from tests.strongbox.cli.conftest import Run
from tests.support.fake_strongbox import SHARES, TOKEN, World


def test_init_prints_shares_and_the_root_token(run: Run, world: World) -> None:
    answer = json.loads(run("operator", "init", "--shares", "2", "-o", "json").stdout)
    assert answer == {"shares": list(SHARES[:2]), "threshold": 2, "root_token": TOKEN}
    assert SHARES[1] in run("operator", "init").stdout


def test_shares_come_from_a_pipe_one_or_more(run: Run, world: World) -> None:
    world.sealed = True
    first = run("operator", "unseal", "-o", "json", said=SHARES[0] + "\r\n")
    assert (first.exit_code, json.loads(first.stdout)["progress"]) == (2, "1/2")
    assert run("operator", "unseal", said=SHARES[1]).exit_code == 0
    world.sealed, world.progress = True, set()
    assert run("operator", "unseal", said="\n".join(SHARES)).exit_code == 0


def test_no_share_is_given_that_is_not_needed(run: Run, world: World, tmp_path: Path) -> None:
    world.sealed = True
    file = tmp_path / "shares"
    file.write_text("\n".join(SHARES))
    assert run("operator", "unseal", "--file", str(file)).exit_code == 0
    assert [request.share for _, request in world.asked] == list(SHARES[:2])


def test_a_reset_goes_with_the_first_share_only(run: Run, world: World) -> None:
    world.sealed = True
    run("operator", "unseal", "--reset", said="\n".join(SHARES))
    assert [request.reset for _, request in world.asked] == [True, False]


def test_a_share_given_before_does_not_keep_those_after_it_from_being_given(run: Run, world: World) -> None:
    world.sealed, world.progress = True, set()
    run("operator", "unseal", said=SHARES[0])
    again = run("operator", "unseal", said=SHARES[0])
    assert (again.exit_code, "REPEATED_SHARE" in again.stderr) == (1, True)
    several = run("operator", "unseal", said="\n".join(SHARES))
    assert several.exit_code == 0
    assert "the share in line 1: " in several.stderr
    assert SHARES[0] not in several.output


def test_a_share_on_the_command_line_is_refused_and_not_quoted(run: Run, world: World) -> None:
    answer = run("operator", "unseal", SHARES[0])
    assert answer.exit_code == 2
    assert SHARES[0] not in answer.output
    assert world.asked == []


def test_a_wrong_line_is_named_and_the_others_are_given(run: Run, world: World, tmp_path: Path) -> None:
    world.sealed = True
    file = tmp_path / "shares"
    file.write_bytes(b"\xef\xbb\xbf\r\n" + "\r\n".join(["bm90LW9uZQ", *SHARES[:2]]).encode())
    answer = run("operator", "unseal", "--file", str(file))
    assert (answer.exit_code, world.sealed) == (0, False)
    assert "the share in line 2: " in answer.stderr
    assert not any(share in answer.output for share in ("bm90LW9uZQ", *SHARES))


@pytest.mark.parametrize("how", ["table", "json"])
def test_what_init_printed_unseals_and_its_root_token_is_not_sent(
    run: Run, world: World, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "init"
    file.write_text(run("operator", "init", "-o", how).stdout)
    world.sealed, world.asked = True, []
    assert run("operator", "unseal", "--file", str(file)).exit_code == 0
    assert [request.share for _, request in world.asked] == list(SHARES[:2])


@pytest.mark.parametrize("how", ["table", "json"])
def test_the_root_token_is_not_sent_as_a_share_however_many_are_missing(
    run: Run, world: World, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "init"
    file.write_text(run("operator", "init", "--shares", "1", "-o", how).stdout)
    world.sealed, world.asked = True, []
    assert run("operator", "unseal", "--file", str(file)).exit_code == 2
    assert [request.share for _, request in world.asked] == [SHARES[0]]


def test_no_share_at_all_is_a_wrong_command_line(run: Run) -> None:
    assert run("operator", "unseal", said="\n").exit_code == 2


def test_a_wrong_share_is_refused_and_not_quoted(run: Run, world: World) -> None:
    world.sealed = True
    answer = run("operator", "unseal", said="bm90LW9uZQ")
    assert answer.exit_code == 1
    assert "WRONG_SHARE" in answer.stderr
    assert "bm90LW9uZQ" not in answer.output


def test_seal_says_who_confirmed(run: Run) -> None:
    assert json.loads(run("operator", "seal", "-o", "json").stdout)["unconfirmed"] == ["node-3"]


def test_status_is_two_when_sealed(run: Run, world: World) -> None:
    assert run("operator", "status").exit_code == 0
    world.sealed = True
    answer = run("operator", "status", "-o", "json")
    assert (answer.exit_code, json.loads(answer.stdout)["sealed"]) == (2, True)


def test_any_other_command_is_two_when_sealed(run: Run, world: World) -> None:
    world.sealed = True
    answer = run("kv", "get", "a")
    assert answer.exit_code == 2
    assert "SEALED" in answer.stderr


def test_what_the_service_refuses_is_one_and_says_the_request(run: Run, world: World) -> None:
    world.failure = NoQuorum()
    answer = run("operator", "status")
    assert answer.exit_code == 1
    assert "NO_QUORUM" in answer.stderr
    assert "request 7d9f0c1e" in answer.stderr


def test_rotate_tells_the_term_and_how_far_rewrapping_is(run: Run) -> None:
    told = json.loads(run("operator", "rotate", "-o", "json").stdout)
    assert (told["term"], told["rewrap"]) == (2, {"done": 0.0, "total": 7.0, "passed_over": 0.0})
    assert json.loads(run("operator", "rotate", "--status", "-o", "json").stdout)["term"] == 1


def test_a_rekey_goes_from_its_first_share_to_the_new_ones(run: Run, world: World, tmp_path: Path) -> None:
    told = run("operator", "rekey", "--shares", "5", "--threshold", "3", "-o", "json", said="\n".join(SHARES))
    assert json.loads(told.stdout)["shares"] == ["bmV3"]
    assert [name for name, _ in world.asked] == ["StartRekey", "UpdateRekey"]
    assert (world.asked[0][1].shares, world.asked[0][1].threshold) == (5, 3)
    assert world.asked[1][1].nonce == "n"
    nonce = tmp_path / "nonce"
    nonce.write_text("n\r\n")
    assert run("operator", "rekey", "--nonce-file", str(nonce), "--verify", said="bmV3").exit_code == 0
    assert run("operator", "rekey", "--nonce-file", str(nonce), "--cancel").exit_code == 0
    assert [(name, request.nonce) for name, request in world.asked[2:]] == [
        ("VerifyRekey", "n"), ("CancelRekey", "n"),
    ]  # fmt: skip


def test_a_root_token_is_made_by_shares_from_a_pipe(run: Run, world: World, tmp_path: Path) -> None:
    begun = run("operator", "generate-root", "-o", "json", said=SHARES[0])
    assert json.loads(begun.stdout)["nonce"] == "n"
    nonce = tmp_path / "nonce"
    nonce.write_text("n")
    done = run("operator", "generate-root", "--nonce-file", str(nonce), "-o", "json", said=SHARES[1])
    assert json.loads(done.stdout)["root_token"] == "sb.root"
    assert run("operator", "generate-root", "--cancel", "--nonce-file", str(nonce)).exit_code == 0


def test_a_ceremony_goes_on_only_with_its_nonce(run: Run, world: World) -> None:
    for words in (("rekey", "--verify"), ("rekey", "--cancel"), ("generate-root", "--cancel")):
        assert run("operator", *words, said=SHARES[0]).exit_code == 2
    assert run("operator", "rekey", SHARES[0]).exit_code == 2
    assert world.asked == []


def test_status_says_what_is_not_known_and_calls_no_cluster_uninitialised(run: Run, world: World) -> None:
    """Whoever read `initialized  false` in an outage of etcd tried `operator init`."""
    world.etcd_is_away = True
    answer = run("operator", "status")
    assert answer.exit_code == 1
    pairs = (line.partition("  ") for line in answer.stdout.splitlines())
    lines = {name: value.strip() for name, _, value in pairs}
    assert (lines["initialized"], lines["leader"], lines["term"]) == ("unknown", "unknown", "unknown")
    told = json.loads(run("operator", "status", "-o", "json").stdout)
    assert (told["initialized"], told["leader"], told["sealed"]) == (None, None, False)
    world.sealed = True
    assert run("operator", "status").exit_code == 2
