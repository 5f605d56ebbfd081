"""S9: the audit log, checked by an outsider with `strongbox-verify` and nothing else.

What is checked is the log of each replica as it stands on disk after real requests; what is spoiled are
copies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongbox.audit_log.merkle import is_included
from tests.scenarios.world import World
from tests.support.cluster import Cluster
from tests.support.expect import eventually, refused

Lines = list[bytes]
_VERIFY = Path(sys.executable).with_name("strongbox-verify")


@dataclass(frozen=True, slots=True)
class Case:
    """A log with what proves it, in a folder of its own."""

    folder: Path
    lines: Lines
    by_key: list[str]
    by_checkpoint: list[str]
    size: int

    def verify(self, lines: Lines, proofs: list[str]) -> tuple[int, str]:
        """Exit status and what was printed, for a copy of the log that holds these lines."""
        copy = self.folder / "copy.jsonl"
        copy.write_bytes(b"".join(lines))
        done = subprocess.run([_VERIFY, copy, *proofs], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, done.stdout


def tampered_entries_are_named(world: World) -> str:
    """Each field changed, and entries removed, put in, moved and repeated: found, with the index."""
    with _case(world) as case:
        middle = case.size // 2
        for name in json.loads(case.lines[middle]):
            _caught(case, middle, _changed(case.lines, middle, name), f"{name} changed")
        edits: dict[str, Callable[[Lines], Lines]] = {
            "deleted": lambda lines: lines[:middle] + lines[middle + 1 :],
            "inserted": lambda lines: [*lines[:middle], _forged(lines[middle - 1]), *lines[middle:]],
            "reordered": lambda lines: [
                *lines[:middle], lines[middle + 1], lines[middle], *lines[middle + 2 :]
            ],
            "duplicated": lambda lines: [*lines[: middle + 1], lines[middle], *lines[middle + 1 :]],
        }  # fmt: skip
        for what, edit in edits.items():
            first = middle + 1 if what == "duplicated" else middle
            _caught(case, first, edit(case.lines), what)
            status, said = case.verify(edit(case.lines), [])  # without any key the links tell
            # Only the key tells that it is nobody's; without one, the next entry does not follow it.
            first += what == "inserted"
            assert (status, f"first bad index {first}:" in said) == (1, True), f"{what}: {said}"
        return f"a log of {case.size} entries, {len(edits) + 14} ways"


def cut_off_logs_are_caught(world: World) -> str:
    """Shorter and older logs, halves of two replicas' logs, edited checkpoints; the intact log verifies."""
    with _case(world) as case:
        for proofs in (case.by_key, case.by_checkpoint, case.by_key + case.by_checkpoint):
            status, said = case.verify(case.lines, proofs)
            assert (status, said.startswith("intact")) == (0, True), said
        for size in (case.size - 1, case.size // 2, 1, 0):
            status, said = case.verify(case.lines[:size], case.by_checkpoint)
            assert (status, f"first bad index {size}:" in said) == (1, True), said
        other = _another_log(case)
        half = case.size // 2
        for mixed in (case.lines[:half] + other[half:], other[:half] + case.lines[half:]):
            assert case.verify(mixed, case.by_key)[0] == 1
            assert case.verify(mixed, case.by_checkpoint)[0] == 1
        assert case.verify(other, case.by_checkpoint)[0] == 1, "written anew, every link in order"
        note = Path(case.by_checkpoint[3])
        text = note.read_text()
        for place in range(len(text)):
            changed = "x" if text[place] != "x" else "y"
            note.write_text(text[:place] + changed + text[place + 1 :])
            if place % (16 if world.short else 1) == 0:
                assert case.verify(case.lines, case.by_checkpoint)[0] == 1, f"character {place} of the note"
        note.write_text(text)
        assert case.verify(case.lines, case.by_checkpoint)[0] == 0
        return f"a log of {case.size} entries"


class _case:  # noqa: N801  used as a function
    """A context manager: real requests, then the log as every replica has it, its keys and a checkpoint."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._folder = tempfile.TemporaryDirectory(prefix="strongbox-s9-")

    def __enter__(self) -> Case:
        folder, cluster = Path(self._folder.name), self._world.unsealed()
        with self._world.rest(self._world.root_token) as rest:
            for number in range(10):
                rest.write("s9/entry", f"value {number}")
                rest.read("s9/entry")
            refused("NOT_FOUND", rest.read, "s9/nothing")
            key = rest.call("POST", "/v1/audit/export-key", {})["key"]
            public = rest.call("GET", "/v1/audit/public-key")["public_key"]
            signed = rest.call("GET", "/v1/audit/checkpoint")
            size = int(signed["size"])
            logs = [eventually(15, _log_of, cluster, node, size) for node in cluster.node_ids]
            for index in {0, size // 2, size - 1}:
                _require_proof(rest.call("GET", "/v1/audit/proof", index=index, size=size), signed, logs[0])
        for name, text in {"key": key, "public": public, "checkpoint": signed["checkpoint"]}.items():
            (folder / name).write_text(text)
        assert logs[0] == logs[1] == logs[2], "the replicas' logs differ"
        by_checkpoint = ["--public-key", str(folder / "public"), "--checkpoint", str(folder / "checkpoint")]
        return Case(folder, logs[0], ["--key-file", str(folder / "key")], by_checkpoint, size)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _require_proof(proof: dict[str, Any], signed: dict[str, Any], lines: Lines) -> None:
    """The entry as it stands in the file is in the log as it was signed."""
    leaf = hashlib.sha256(b"\0" + lines[proof["index"]]).digest()
    assert base64.b64decode(proof["leaf_hash"]) == leaf
    assert proof["root_hash"] == signed["root_hash"]
    path = [base64.b64decode(each) for each in proof["inclusion_path"]]
    root = base64.b64decode(proof["root_hash"])
    assert is_included(proof["index"], proof["size"], leaf, path, root)


def _log_of(cluster: Cluster, node: str, size: int) -> Lines:
    """The first `size` lines that a node's replica has on disk."""
    files = sorted((cluster.folder / node / "audit").glob("*.jsonl"))
    lines = b"".join(file.read_bytes() for file in files).splitlines(keepends=True)
    assert len(lines) >= size, f"{node} has {len(lines)} of {size} entries"
    return lines[:size]


def _caught(case: Case, index: int, lines: Lines, what: str) -> None:
    status, said = case.verify(lines, case.by_key)
    assert (status, f"first bad index {index}:" in said) == (1, True), f"{what}: {said}"
    assert case.verify(lines, case.by_checkpoint)[0] == 1, f"{what}: not found by the checkpoint"


def _changed(lines: Lines, index: int, name: str) -> Lines:
    fields = json.loads(lines[index])
    value = fields[name]
    fields[name] = value + 1 if isinstance(value, int) else ("0" if value[:1] != "0" else "1") + value[1:]
    return [*lines[:index], _line(fields), *lines[index + 1 :]]


def _forged(before: bytes) -> bytes:
    """A plausible entry after the one given, by somebody who does not have the key."""
    fields = json.loads(before)
    return _line({**fields, "index": fields["index"] + 1, "prev_hmac": fields["hmac"], "hmac": "ab" * 32})


def _another_log(case: Case) -> Lines:
    """The same entries with other accessors, chained anew with links in order: a log of another history."""
    lines, head = [], "0" * 64
    for number, line in enumerate(case.lines):
        fields = {**json.loads(line), "accessor": "mallory", "prev_hmac": head, "hmac": f"{number:064x}"}
        head = fields["hmac"]
        lines.append(_line(fields))
    return lines


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
