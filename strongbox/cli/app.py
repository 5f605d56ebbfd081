"""The command's tree. gRPC and the local cluster's runner are imported only by commands that need them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

import typer

from strongbox.cli.commands import (
    approle,
    audit,
    kubernetes,
    kv,
    lease,
    login,
    operator,
    policy,
    postgres,
    token,
    user,
)
from strongbox.cli.output import Format, choose

DEV_HELP = "A cluster on this machine, for trying out and for tests."


def build(*, with_dev: bool) -> typer.Typer:
    """The whole command; `with_dev`: with the local cluster's commands, not only their name."""
    root = typer.Typer(
        name="strongbox",
        no_args_is_help=True,
        add_completion=False,
        # A traceback with locals would print secrets.
        pretty_exceptions_enable=False,
        help="StrongBox, a distributed secrets manager.\n\n"
        "Settings: STRONGBOX_ADDR (http://127.0.0.1:8201), STRONGBOX_TOKEN, STRONGBOX_CACERT (a PEM file). "
        "Exit status: 0; 1 refused or failed; 2 a wrong command line, or sealed.",
    )
    root.callback()(choose)
    for room in (operator, kv, token, policy, user, approle, kubernetes, lease, postgres, audit):
        root.add_typer(room.app)
    root.command("login")(login.login)
    root.add_typer(_dev() if with_dev else _name_only(), name="dev", help=DEV_HELP)
    return root


def _dev() -> typer.Typer:
    try:
        from strongbox.dev.cli import app
    except ImportError as missing:
        sys.exit(f"strongbox dev: not installed here ({missing.name} is missing)")
    return app


def _name_only() -> typer.Typer:
    """Stand for `dev` in the list of commands."""
    app = typer.Typer()
    app.callback()(lambda: None)
    return app


def main() -> None:
    """Run the command line; exits. What cannot be printed is told, with exit 1; a reader may leave."""
    before = [word for word in sys.argv[1:] if not word.startswith("-") and word not in set(Format)]
    try:
        try:
            build(with_dev=before[:1] == ["dev"])()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _end()
    except UnicodeEncodeError as error:
        _end(
            "an argument is not text"
            if error.encoding == "utf-8"
            else f"the output's encoding, {error.encoding}, lacks a character: set PYTHONIOENCODING=utf-8"
        )
    except OSError as error:
        _end(f"{error.filename or 'the output cannot be written'}: {error.strerror}")


def _end(why: str = "") -> NoReturn:
    """Exit 1; what is still in the output's buffer is not tried again."""
    if why:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"strongbox: {why}\n")
            sys.stderr.flush()
    os._exit(1)
