"""`strongbox-verify FILE… [--key-file F] [--public-key F --checkpoint F] [--allow-empty]`: is a log intact?

Offline, with no other part of the cluster.

FILEs are the segments of one log in order; a file that begins with index 0 begins another log (so the logs
of several replicas can be named together). They are read once, in constant memory. Two proofs, alone or
together:

* by the HMAC keys (a key file is what `POST /v1/audit/export-key` answers): every entry, and where it stands;
  a log that is cut off at its end looks like a shorter one;
* by the public key and a checkpoint that was kept elsewhere: the log begins with exactly the entries that
  were signed, so one that was cut off, rolled back or written anew is found, without any secret. Which entry
  was changed is told exactly if the row of hashes (`audit.hashes`) still stands beside the first file; else
  only the range that it is in, which further checkpoints narrow.

For a log whose oldest segments are archived, name the archive's files first: both are verified together.
Without them the rest is verified from the marker beside it (`audit.archived`), and the answer says so.

With neither, only form, numbering and links are checked, and the answer says so.

A log without any entry is not intact: no log of a cluster that was initialised is empty, so somebody emptied
it, or these are the wrong files. It is an alarm (1), unless `--allow-empty` says that it may be so, or a
checkpoint of size 0 was given.

Exit 0: intact; 1: tampered, stdout names the first bad index and the reason; 2: usage, or a file cannot be
read. A note, a public key or a key file may also be given as the JSON answer that held it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from strongbox.audit_log.chain import MissingKey, Tampered
from strongbox.audit_log.checkpoint import BadCheckpoint, Checkpoint, verify
from strongbox.audit_log.key_file import parse_keys
from strongbox.audit_log.log_checker import Log, OfTheArchive, Progress, Proofs, Unsigned, verify_files
from strongbox.crypto.ed25519 import from_pem

INTACT, TAMPERED, USAGE = 0, 1, 2


class WrongInput(Exception):
    """A file beside the log is not what it should be."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if bool(arguments.public_key) != bool(arguments.checkpoint):
        parser.error("--public-key and --checkpoint go together")
    told = _Teller(as_json=arguments.output == "json")
    try:
        proofs = _proofs(arguments)
        logs = verify_files(arguments.files, proofs, Progress.on(sys.stderr, arguments.files))
    except BadCheckpoint as fault:
        return told.tampered(None, str(fault))
    except Tampered as fault:
        return told.tampered(fault.index, fault.reason)
    except MissingKey as error:
        return told.unusable(f"the key file lacks key term {error.term}, needed from entry {error.index} on")
    except OSError as error:
        return told.unusable(f"cannot read {error.filename}: {error.strerror}")
    except (WrongInput, OfTheArchive, Unsigned) as error:
        return told.unusable(str(error))
    may_be_empty = arguments.allow_empty or any(one.size == 0 for one in proofs.checkpoints)
    if not may_be_empty and not any(log.entries for log in logs):
        return told.tampered(0, "the log is empty, and no cluster's log is (--allow-empty if it may be)")
    return told.intact(logs, proofs)


def _proofs(arguments: argparse.Namespace) -> Proofs:
    """What to check by. Raises WrongInput, BadCheckpoint, OSError."""
    keys = None
    if arguments.key_file:
        try:
            keys = parse_keys(_text(arguments.key_file, "key"))
        except ValueError:
            raise WrongInput("the key file does not hold an exported key") from None
    checkpoints: list[Checkpoint] = []
    public = b""
    if arguments.public_key:
        try:
            public = from_pem(_text(arguments.public_key, "public_key"))
        except ValueError:
            raise WrongInput("the public key is not an Ed25519 key in PEM") from None
        notes = (_text(file, "checkpoint") for file in arguments.checkpoint)
        checkpoints = sorted((verify(note, public) for note in notes), key=lambda one: one.size)
    return Proofs(keys, tuple(checkpoints), public)


def _text(file: Path, name: str) -> str:
    """A file's text, or the field of that name if it is a JSON answer. Raises OSError, WrongInput."""
    try:
        text = file.read_bytes().decode()
        if not text.lstrip().startswith("{"):
            return text
        return str(json.loads(text)[name])
    except (ValueError, KeyError):
        raise WrongInput(f"{file} does not hold what it should") from None


class _Teller:
    """Says what was found, for people or for machines."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def intact(self, logs: Sequence[Log], proofs: Proofs) -> int:
        checked = [*(["hmac"] if proofs.keys else []), *(["checkpoint"] if proofs.checkpoints else [])]
        if self._as_json:
            found = [{"entries": log.entries, "head": log.head, "first_index": log.first} for log in logs]
            print(json.dumps({"intact": True, "checked": ["form", "links", *checked], "logs": found}))
            return INTACT
        how = [*(["every HMAC matches"] if proofs.keys else [])]
        how += [f"the first {one.size} entries are those signed" for one in proofs.checkpoints]
        words = "; ".join(how) or (
            "links only: give --key-file, or --public-key and --checkpoint, to check what the entries say"
        )
        for log in logs:
            archived = f", of which the first {log.first} are archived and not checked" if log.first else ""
            print(f"intact: {log.entries} entries{archived}, head {log.head} ({words})")
        if not logs:
            print(f"intact: 0 entries ({words})")
        return INTACT

    def tampered(self, index: int | None, reason: str) -> int:
        if self._as_json:
            print(json.dumps({"intact": False, "first_bad_index": index, "reason": reason}))
        else:
            print(f"TAMPERED: first bad index {'unknown' if index is None else index}: {reason}")
        return TAMPERED

    def unusable(self, why: str) -> int:
        print(why, file=sys.stderr)
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strongbox-verify", description="Check that an audit log is intact."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the log's segments in order")
    parser.add_argument("--key-file", type=Path, metavar="F", help="what `export-key` answered")
    parser.add_argument("--public-key", type=Path, metavar="F", help="the log's public key, PEM")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="F", action="append", default=[],
        help="a signed checkpoint that was kept elsewhere; may be given several times",
    )  # fmt: skip
    parser.add_argument("--allow-empty", action="store_true", help="a log without any entry is no alarm")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
