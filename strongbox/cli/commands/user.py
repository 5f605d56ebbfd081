"""`strongbox user`: who logs in with a password."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongbox.cli.connect import complain, connected
from strongbox.cli.input_values import read_secret, to_text, without_line_end
from strongbox.cli.output import Format, Output, show, show_names, to_dict

app = typer.Typer(name="user", help="Write, read, list and delete users.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
ARGV = "a password never goes on the command line, where others can read it: pipe it, or use --file"


@app.command("write")
def write(
    name: Name,
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="< PASSWORD")] = None,
    policy: Annotated[list[str], typer.Option("--policy", help="A policy's name; may be repeated.")] = [],  # noqa: B006
    token_ttl: Annotated[str | None, typer.Option(help="Of the tokens that logins give (1h).")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="The password; - is stdin.")] = None,
    keep: Annotated[bool, typer.Option("--keep-password", help="Leave the password as it is.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a user. The password comes from a pipe (less one line end), a file, or a prompt."""
    if extra:
        complain(ARGV)
    password = None if keep else read_password(file, "Password", confirm=True)
    with connected() as box:
        show(to_dict(box.users.write(name, policy, password=password, token_ttl=token_ttl)), output)


def read_password(file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """A password as text; a file may end in one line end, as a pipe may."""
    raw = without_line_end(read_secret(file, prompt, confirm=confirm, exact=True))
    return to_text(raw, "the password", "it is text")


@app.command("read")
def read(name: Name, output: Output = Format.TABLE) -> None:
    """A user, without anything of his password."""
    with connected() as box:
        show(to_dict(box.users.read(name)), output)


@app.command("list")
def list_names(output: Output = Format.TABLE) -> None:
    """Names of all users."""
    with connected() as box:
        show_names(box.users.list(), output)


@app.command("delete")
def delete(name: Name, output: Output = Format.TABLE) -> None:
    """Remove a user; tokens that he has live on until they expire or are revoked."""
    with connected() as box:
        show(to_dict(box.users.delete(name)), output)
