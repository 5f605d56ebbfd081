"""`strongbox operator`: init, unseal, seal, status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongbox.cli.intake import read_secret, to_text
from strongbox.cli.output import Format, Output, show, to_dict
from strongbox.cli.session import SEALED, complain, connected
from strongbox.errors import RepeatedShare, StrongBoxError

if TYPE_CHECKING:
    from strongbox.client import StrongBox
    from strongbox.seal.v1.seal_service_pb2 import UnsealResponse

app = typer.Typer(
    name="operator", help="Initialise, unseal, seal and look at the cluster.", no_args_is_help=True
)


@app.command("init")
def init(
    shares: Annotated[int, typer.Option(help="How many key shares are made.")] = 3,
    threshold: Annotated[int, typer.Option(help="How many of them unseal.")] = 2,
    output: Output = Format.TABLE,
) -> None:
    """Make keys, key shares and the root token; once in a cluster's life, printed here and kept nowhere."""
    with connected() as box:
        show(to_dict(box.seal.init(shares, threshold)), output)


@app.command("unseal")
def unseal(
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="< SHARES")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file with one or more shares, one a line; - is stdin.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget the shares given so far.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Give key shares to the whole cluster: from a pipe, a file, or a prompt. Exit 2 while still sealed.

    A share that was given before is refused alone: those after it are given all the same.
    """
    if extra:
        complain("a key share never goes on the command line, where others read it: pipe it, or use --file")
    text = to_text(read_secret(file, "Key share"), "a key share", "it is base64url text")
    shares = text.split()
    if not shares:
        complain("no key share was given")
    with connected() as box:
        answer = _give(box, shares, reset=reset)
    show(to_dict(answer), output)
    raise typer.Exit(SEALED if answer.sealed else 0)


def _give(box: StrongBox, shares: list[str], *, reset: bool) -> UnsealResponse:
    """Give as many as are needed; the last answer. Raises RepeatedShare when none was new."""
    answer, repeated = None, None
    for number, share in enumerate(shares):
        try:
            answer = box.seal.unseal(share, reset=reset and number == 0)
        except RepeatedShare as error:
            repeated = error
            typer.echo(f"strongbox: share {number + 1} of these was given already", err=True)
            continue
        if not answer.sealed:
            break
    if answer is None:
        assert repeated is not None
        raise repeated
    return answer


@app.command("seal")
def seal(output: Output = Format.TABLE) -> None:
    """Seal every node."""
    with connected() as box:
        show(to_dict(box.seal.seal()), output)


@app.command("status")
def status(output: Output = Format.TABLE) -> None:
    """How the cluster is, as one node sees it. Exit 2 when it is sealed or not initialised."""
    with connected() as box:
        health = box.seal.health()
        facts = to_dict(health)
        try:
            facts["progress"] = box.seal.status().progress
        except StrongBoxError as error:  # without quorum health still answers, and is still worth showing
            facts["progress"] = f"unknown ({error.reason})"
    show(facts, output)
    raise typer.Exit(SEALED if health.sealed or not health.initialized else 0)
