"""From the environment to a client, and from an error to an exit status."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from strongbox.errors import InvalidInput, NotInitialized, Sealed, StrongBoxError, Unauthenticated

if TYPE_CHECKING:
    from strongbox.client import StrongBox

DEFAULT_ADDRESS = "http://127.0.0.1:8201"
FAILED, USAGE, SEALED = 1, 2, 2


@contextmanager
def connected(*, with_token: bool = True) -> Iterator[StrongBox]:
    """A client as the environment says; a refusal inside becomes a line on stderr and the exit status."""
    from strongbox.client import StrongBox

    try:
        with StrongBox(
            _setting("ADDR") or DEFAULT_ADDRESS,
            _setting("TOKEN") if with_token else "",
            _setting("CACERT") or None,
        ) as box:
            yield box
    except StrongBoxError as error:
        refuse(error, with_token=with_token)


def refuse(error: StrongBoxError, *, with_token: bool = True) -> NoReturn:
    """Say why, and with which request id, and exit."""
    request_id = error.metadata.get("request_id", "")
    typer.echo(f"strongbox: {error.message} ({error.reason})", err=True)
    if with_token and isinstance(error, Unauthenticated) and not _setting("TOKEN"):
        typer.echo("strongbox: STRONGBOX_TOKEN is not set", err=True)
    if request_id:
        typer.echo(f"strongbox: request {request_id}", err=True)
    raise typer.Exit(_status_of(error, is_ours=not request_id))


def complain(text: str) -> NoReturn:
    """Refuse a command line; `text` never quotes what could be a secret."""
    typer.echo(f"strongbox: {text}", err=True)
    raise typer.Exit(USAGE)


def _status_of(error: StrongBoxError, *, is_ours: bool) -> int:
    """What is refused before it is sent is a wrong command line; what the service refuses is a failure."""
    if isinstance(error, Sealed | NotInitialized):
        return SEALED
    return USAGE if is_ours and isinstance(error, InvalidInput) else FAILED


def _setting(name: str) -> str:
    # Stripped: files and Windows shells leave a carriage return behind, which no address or token has.
    return os.environ.get(f"STRONGBOX_{name}", "").strip()
