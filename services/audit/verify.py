"""`strongbox-verify FILE… [--key-file F]`: is an audit log intact? Offline, streaming, in constant memory.

FILEs are the segments of one log in order; a file that begins with index 0 begins another log (so the logs of
several replicas can be named together). Without a key only form, numbering and links are checked, and the
answer says so. Exit 0: intact; 1: tampered, stdout names the first bad index and the reason; 2: usage, or a
file cannot be read. A key file is what `POST /v1/audit/export-key` answers: lines of `<term>:<64 hex
digits>`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.audit.chain import KEY_BYTES, Tampered, Verifier

INTACT, TAMPERED, USAGE = 0, 1, 2
_LONGEST_LINE = 1 << 20  # bytes; ours are under 4 KiB, so a longer one is nobody's entry


def parse_key(text: str) -> bytes:
    """The chain's key from an exported key file. Raises ValueError without quoting it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise ValueError("a key file has one line for each key term, and there is one term")
    key = bytes.fromhex(lines[0].rpartition(":")[2])
    if len(key) != KEY_BYTES:
        raise ValueError("a key has 64 hex digits")
    return key


def format_key(key: bytes) -> str:
    """What `parse_key` reads."""
    return f"1:{key.hex()}\n"


def verify_files(files: Sequence[Path], key: bytes | None) -> list[Verifier]:
    """Check every file; one Verifier per log, holding its size and head. Raises Tampered or OSError."""
    logs: list[Verifier] = []
    for file in files:
        verify_file(file, key, logs)
    return logs


def verify_file(file: Path, key: bytes | None, logs: list[Verifier]) -> None:
    """Check one file as the continuation of the last log, or as the beginning of another."""
    with file.open("rb") as stream:
        first = True
        while line := stream.readline(_LONGEST_LINE):
            if first and (not logs or line.startswith(b'{"index":0,')):
                logs.append(Verifier(key))
            first = False
            logs[-1].check(line)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        key = parse_key(arguments.key_file.read_text("ascii")) if arguments.key_file else None
        logs = verify_files(arguments.files, key)
    except Tampered as fault:
        print(f"TAMPERED: first bad index {fault.index}: {fault.reason}")
        return TAMPERED
    except OSError as error:
        print(f"cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    except ValueError:
        print("the key file does not hold an exported key", file=sys.stderr)
        return USAGE
    how = "every HMAC matches" if key else "links only: give --key-file to check what the entries say"
    for log in logs:
        print(f"intact: {log.size} entries, head {log.head} ({how})")
    if not logs:
        print(f"intact: 0 entries ({how})")
    return INTACT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strongbox-verify", description="Check that an audit log is intact."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the log's segments in order")
    parser.add_argument("--key-file", type=Path, help="what `export-key` answered")
    return parser


if __name__ == "__main__":
    sys.exit(main())
