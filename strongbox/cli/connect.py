"""From the environment to a client, and from an error to an exit status."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from strongbox.errors import (
    InvalidInput,
    NotInitialized,
    Sealed,
    StrongBoxError,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from strongbox.client import StrongBox

DEFAULT_ADDRESS = "http://127.0.0.1:8201"
FAILED, USAGE, SEALED = 1, 2, 2
# In gRPC's text, of a handshake that the other side did not understand.
_NO_TLS = ("WRONG_VERSION_NUMBER", "SSL_ERROR", "Ssl handshake failed", "handshake")


@contextmanager
def connected(*, with_token: bool = True) -> Iterator[StrongBox]:
    """A client as the environment says; a refusal inside becomes a line on stderr and the exit status."""
    # gRPC's own log would tell of each failed handshake, on stderr, before we do.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
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
    typer.echo(f"strongbox: {_in_our_words(error)} ({error.reason})", err=True)
    if with_token and isinstance(error, Unauthenticated) and not _setting("TOKEN"):
        typer.echo("strongbox: STRONGBOX_TOKEN is not set", err=True)
    if request_id:
        typer.echo(f"strongbox: request {request_id}", err=True)
    raise typer.Exit(_status_of(error, is_ours=not request_id))


def _in_our_words(error: StrongBoxError) -> str:
    """gRPC's account of a failed handshake as a sentence; any other message as it is."""
    address = _setting("ADDR") or DEFAULT_ADDRESS
    if not isinstance(error, Unavailable) or error.metadata.get("request_id"):
        return error.message
    if "CERTIFICATE_VERIFY_FAILED" in error.message:
        return f"the certificate of {address} is of no authority that is trusted: set STRONGBOX_CACERT"
    if any(mark in error.message for mark in _NO_TLS):
        return f"no TLS handshake with {address}: does it speak TLS?"
    return error.message


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
