"""`strongbox operator`: init, unseal, seal, rotate, rekey, generate-root, status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongbox.cli.connect import FAILED, SEALED, complain, connected
from strongbox.cli.input_values import read_secret, to_text
from strongbox.cli.output import Format, Output, show, to_dict
from strongbox.cli.shares import Share, read_shares
from strongbox.errors import InvalidInput, StrongBoxError

if TYPE_CHECKING:
    from strongbox.client import StrongBox
    from strongbox.seal.v1.seal_service_pb2 import UnsealResponse

app = typer.Typer(
    name="operator",
    help="Initialise, unseal, seal and look at the cluster; renew its keys.",
    no_args_is_help=True,
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

    A share that was given before, or is wrong, is refused alone: those after it are given all the same. The
    file may be what operator init printed.
    """
    if extra:
        complain("a key share never goes on the command line, where others read it: pipe it, or use --file")
    shares = read_shares(file)
    with connected() as box:
        answer = _give(box, shares, reset=reset)
    show(to_dict(answer), output)
    raise typer.Exit(SEALED if answer.sealed else 0)


def _give(box: StrongBox, shares: list[Share], *, reset: bool) -> UnsealResponse:
    """Give as many as are needed; the last answer. Raises the last share's refusal when none was taken."""
    answer, refusal = None, None
    for share in shares:
        try:
            answer = box.seal.unseal(share.text, reset=reset and answer is None)
        except InvalidInput as error:
            refusal = error
            typer.echo(f"strongbox: {share}: {error.message}", err=True)
            continue
        if not answer.sealed:
            break
    if answer is None:
        assert refusal is not None
        raise refusal
    return answer


@app.command("seal")
def seal(output: Output = Format.TABLE) -> None:
    """Seal every node."""
    with connected() as box:
        show(to_dict(box.seal.seal()), output)


NonceFile = Annotated[
    Path | None, typer.Option("--nonce-file", help="A file with the nonce that the beginning gave.")
]
ShareFile = Annotated[
    Path | None, typer.Option("--file", help="A file with one or more shares, one a line; - is stdin.")
]


@app.command("rotate")
def rotate(
    status_only: Annotated[bool, typer.Option("--status", help="Only say how far rewrapping is.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Begin a new key term; what is stored is brought under it in the background."""
    with connected() as box:
        show(to_dict(box.seal.key_status() if status_only else box.seal.rotate()), output)


@app.command("rekey")
def rekey(
    shares: Annotated[int, typer.Option(help="How many new key shares are made.")] = 3,
    threshold: Annotated[int, typer.Option(help="How many of them unseal.")] = 2,
    file: ShareFile = None,
    nonce_file: NonceFile = None,
    verify: Annotated[bool, typer.Option("--verify", help="Give new shares back: the old ones die.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget what was begun.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make new key shares with the present ones, from a pipe, a file, or a prompt.

    Without --nonce-file it begins, and prints the nonce; with it, it goes on. The new shares are printed
    once, and replace the present ones when a threshold of them was given back with --verify.
    """
    nonce = _nonce(nonce_file, needed=verify or cancel)
    with connected() as box:
        if cancel:
            show(to_dict(box.seal.cancel_rekey(nonce)), output)
            return
        given = read_shares(file)
        answer: Any = None
        for share in (one.text for one in given):
            if verify:
                answer = box.seal.verify_rekey(nonce, share)
            elif nonce:
                answer = box.seal.update_rekey(nonce, share)
            else:
                answer = box.seal.start_rekey(share, shares, threshold)
            nonce = answer.nonce
            if answer.complete:
                break
    show(to_dict(answer), output)


@app.command("generate-root")
def generate_root(
    file: ShareFile = None,
    nonce_file: NonceFile = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget what was begun.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a new root token with a threshold of key shares, from a pipe, a file, or a prompt.

    Without --nonce-file it begins, and prints the nonce; with it, it goes on.
    """
    nonce = _nonce(nonce_file, needed=cancel)
    with connected() as box:
        if cancel:
            show(to_dict(box.seal.cancel_generate_root(nonce)), output)
            return
        answer: Any = None
        for share in (one.text for one in read_shares(file)):
            if nonce:
                answer = box.seal.update_generate_root(nonce, share)
            else:
                answer = box.seal.start_generate_root(share)
            nonce = answer.nonce
            if answer.complete:
                break
    show(to_dict(answer), output)


def _nonce(file: Path | None, *, needed: bool) -> str:
    """The nonce in a file; empty when none is named."""
    if file is None:
        if needed:
            complain("the nonce is needed: --nonce-file")
        return ""
    return to_text(read_secret(file, "Nonce"), "a nonce", "it is base64url text").strip()


@app.command("status")
def status(output: Output = Format.TABLE) -> None:
    """How the cluster is, as one node sees it. Exit 2: sealed or not initialised; 1: that is not known."""
    with connected() as box:
        health = box.seal.health()
        known = to_dict(health)
        # What that node cannot know, since etcd does not answer it, is absent.
        facts = {field.name: known.get(field.name) for field in health.DESCRIPTOR.fields}
        try:
            facts["progress"] = box.seal.status().progress
        except StrongBoxError as error:  # without quorum health still answers, and is still worth showing
            facts["progress"] = f"unknown ({error.reason})"
    show(facts, output)
    if not health.sealed and not health.HasField("initialized"):
        raise typer.Exit(FAILED)
    raise typer.Exit(SEALED if health.sealed or not health.initialized else 0)
