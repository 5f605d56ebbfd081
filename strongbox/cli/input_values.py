"""How values, shares and documents come in: from a file, a pipe, or a prompt that shows nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from strongbox.cli.connect import complain

LIMIT = 1 << 20  # bytes; the gateway takes no larger body


def read_file(file: Path) -> bytes:
    """The file's bytes, or all of stdin for `-`."""
    try:
        raw = sys.stdin.buffer.read(LIMIT + 1) if str(file) == "-" else _bounded(file)
    except OSError as error:
        complain(f"{file}: {error.strerror}")
    if len(raw) > LIMIT:
        complain("that is more than 1 MiB")
    return raw


def read_secret(file: Path | None, prompt: str, *, confirm: bool = False, exact: bool = False) -> bytes:
    """A secret: the file as it is; a pipe; or a prompt without echo.

    Of a pipe the one line end is left out that `echo` adds, unless it is `exact` (bytes are), or text of
    several lines, which keeps it: keys and certificates are not whole without. An empty pipe is refused: it
    is what a command that failed leaves; `--file -` says that it is meant.
    """
    if file is not None:
        return read_file(file)
    if sys.stdin.isatty():
        said: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
        return said.encode()
    raw = read_file(Path("-"))
    if not raw:
        complain("nothing came through the pipe; if it is to be empty, say --file -")
    return raw if exact or raw.count(b"\n") > 1 else without_line_end(raw)


def without_line_end(raw: bytes) -> bytes:
    """The same less one line end, of any system."""
    return raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw


def to_text(raw: bytes, what: str, otherwise: str) -> str:
    """UTF-8 text, or exit saying what to do."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        complain(f"{what} is not UTF-8 text; {otherwise}")


def read_json(file: Path | None, what: str) -> Any:
    """A JSON document from a file or stdin; a fault in it is told by its place, never by its text."""
    text = to_text(read_file(file or Path("-")), what, "it must be JSON")
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_no_such_number)
    except json.JSONDecodeError as error:
        complain(f"{what} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}")
    except (ValueError, RecursionError):
        complain(f"{what} is not JSON")


def _bounded(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(LIMIT + 1)


def _no_such_number(_: str) -> None:
    raise ValueError
