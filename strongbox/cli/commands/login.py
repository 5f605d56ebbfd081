"""`strongbox login`: a token for a password, a secret id, or a service account's token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongbox.cli.commands.user import ARGV, read_password
from strongbox.cli.connect import complain, connected
from strongbox.cli.output import Format, Output, say, show, to_dict

if TYPE_CHECKING:
    from strongbox.client import StrongBox


def login(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A user's name.")] = "",
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="< SECRET")] = None,
    approle: Annotated[str, typer.Option("--approle", metavar="ROLE_ID", help="Log in as an AppRole.")] = "",
    kubernetes: Annotated[
        str, typer.Option("--kubernetes", metavar="ROLE", help="Log in to a Kubernetes role.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="The password, secret id or token; - is stdin.")
    ] = None,
    token_only: Annotated[bool, typer.Option("--token-only", help="Print the token, nothing else.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Log in: as a user by password, or as the options say. Secrets come from a pipe, a file or a prompt.

    The token is printed and kept nowhere: export STRONGBOX_TOKEN="$(strongbox login NAME --token-only)"
    """
    if extra:
        complain(ARGV)
    if sum(map(bool, (name, approle, kubernetes))) != 1:
        complain("give a user's name, --approle or --kubernetes: one of them")
    prompt = "Password" if name else "Secret id" if approle else "Service account token"
    secret = read_password(file, prompt)
    with connected(with_token=False) as box:
        facts = to_dict(_answer(box, name, approle, kubernetes, secret))
    if token_only:
        say(facts["token"])
    else:
        show(facts, output)


def _answer(box: StrongBox, name: str, approle: str, kubernetes: str, secret: str) -> Any:
    if name:
        return box.users.login(name, secret)
    if approle:
        return box.approles.login(approle, secret)
    return box.kubernetes.login(kubernetes, secret)
