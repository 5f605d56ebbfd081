"""`strongbox audit`: the tamper-evident log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongbox.cli.connect import complain, connected
from strongbox.cli.output import Format, Output, say, show, show_line, show_rows, to_dict

if TYPE_CHECKING:
    from strongbox.client import StrongBox

app = typer.Typer(name="audit", help="Read the audit log, and verify it.", no_args_is_help=True)

COLUMNS = ("index", "ts", "op", "path", "outcome", "reason", "accessor", "client")
Path_ = Annotated[str, typer.Option("--path", help="Only those of this policy path.")]
Prefix = Annotated[str, typer.Option("--path-prefix", help="Only policy paths that begin so.")]
Accessor = Annotated[str, typer.Option("--accessor", help="Only those of this token.")]
Op = Annotated[str, typer.Option("--op", help="Only this operation, such as ReadSecret.")]
Outcome = Annotated[str, typer.Option("--outcome", help="Only these: ok or refused.")]
PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", help="The log's public key (PEM); kept here if there is none yet."),
]


@app.command("list")
def list_entries(
    from_index: Annotated[int, typer.Option("--from", help="The first index.")] = 0,
    limit: Annotated[int, typer.Option(help="How many at most, up to 1000.")] = 100,
    path: Path_ = "",
    accessor: Accessor = "",
    op: Op = "",
    path_prefix: Prefix = "",
    outcome: Outcome = "",
    since: Annotated[str, typer.Option(help="At or after this RFC 3339 time.")] = "",
    until: Annotated[str, typer.Option(help="Before this RFC 3339 time.")] = "",
    newest: Annotated[bool, typer.Option("--newest", help="From the newest down.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Entries in ascending order; the log holds all that was acknowledged before."""
    if not 1 <= limit <= 1000:
        complain("--limit is 1 to 1000")
    asked = {
        "path": path, "accessor": accessor, "op": op, "path_prefix": path_prefix, "outcome": outcome,
        "since": since, "until": until, "newest_first": newest,
    }  # fmt: skip
    with connected() as box:
        show_rows(_some(box, from_index, limit, asked), COLUMNS, output)


def _some(box: StrongBox, from_index: int, limit: int, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """So many entries: a page may be short and not the last, because a call's work is bounded."""
    before: int | None = None
    while limit:
        page = box.audit.page(from_index, limit, before_index=before, **asked)
        yield from map(to_dict, page.entries)
        limit -= len(page.entries)
        if not page.HasField("next_index"):
            return
        if asked["newest_first"] and page.next_index <= page.first_index:
            if limit:
                typer.echo(f"older entries are archived: the log begins with {page.first_index}", err=True)
            return
        from_index, before = (0, page.next_index) if asked["newest_first"] else (page.next_index, None)


@app.command("tail")
def tail(
    from_index: Annotated[
        int | None, typer.Option("--from", help="Begin with this index; now when absent.")
    ] = None,
    path: Path_ = "",
    accessor: Accessor = "",
    op: Op = "",
    path_prefix: Prefix = "",
    outcome: Outcome = "",
    output: Output = Format.TABLE,
) -> None:
    """Entries as they come, a line each, until Ctrl-C; it goes on over broken connections."""
    with connected() as box:
        followed = box.audit.follow(
            from_index, path=path, accessor=accessor, op=op, path_prefix=path_prefix, outcome=outcome
        )
        for entry in map(to_dict, followed):
            show_line(entry if output is Format.JSON else {name: entry[name] for name in COLUMNS}, output)


@app.command("checkpoint")
def checkpoint(
    public_key: PublicKey = None,
    since: Annotated[
        Path | None, typer.Option(help="A checkpoint kept from before: prove that the log only grew.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Print a signed checkpoint of the log: keep it elsewhere. With --public-key it is verified first."""
    if since and not public_key:
        complain("--since needs --public-key")
    with connected() as box:
        pinned = _pinned(box, public_key) if public_key else ""
        found = box.audit.checkpoint(pinned, _read(since) if since else "")
    if output is Format.JSON:
        show({"checkpoint": found.note, "size": found.size, "root_hash": found.root.hex()}, output)
    else:
        say(found.note, nl=False)


@app.command("public-key")
def public_key_() -> None:
    """Print the public key (PEM) that checkpoints are verified with."""
    with connected() as box:
        say(box.audit.public_key(), nl=False)


@app.command("prove")
def prove(
    index: Annotated[int, typer.Argument(metavar="INDEX", help="An entry.")],
    public_key: Annotated[Path, typer.Option("--public-key", help="The log's public key (PEM).")],
) -> None:
    """Have it proved, and verify, that an entry is in the signed log; prints the checkpoint it is in."""
    with connected() as box:
        say(box.audit.prove(index, _read(public_key)).note, nl=False)


@app.command("archive")
def archive(
    before: Annotated[
        int | None, typer.Option(help="Entries below this index may go; all there are when absent.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Have every replica move signed segments to its archive; run it again to see how far each is."""
    with connected() as box:
        answer = box.audit.archive(before)
    told = [{"node": one.node_id, "first_index": one.first_index} for one in answer.replicas]
    if output is Format.TABLE:
        typer.echo(f"entries below {answer.before_index} may be archived", err=True)
    show_rows(told, ("node", "first_index"), output)


@app.command("rotate-key")
def rotate_key(output: Output = Format.TABLE) -> None:
    """A new HMAC key for what is recorded from now on."""
    with connected() as box:
        show({"term": box.audit.rotate_key()}, output)


@app.command("export-key")
def export_key() -> None:
    """Print the keys that verify the log, for --key-file; whoever has them can forge entries."""
    with connected() as box:
        say(box.audit.export_key(), nl=False)


@app.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The log's segments in order.")],
    key_file: Annotated[Path | None, typer.Option("--key-file", help="What export-key printed.")] = None,
    public_key: Annotated[Path | None, typer.Option("--public-key", help="The public key (PEM).")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="A checkpoint that was kept elsewhere.")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="A log without any entry is no alarm.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Check log files offline, as strongbox-verify does. Exit 0 intact, 1 tampered, 2 cannot be read."""
    from strongbox.audit_log.verify_command import main

    given = [("--key-file", key_file), ("--public-key", public_key)]
    given += [("--checkpoint", file) for file in checkpoint or ()]
    flags = [text for flag, file in given if file for text in (flag, str(file))]
    flags += ["--allow-empty"] if allow_empty else []
    as_json = ["-o", "json"] if output is Format.JSON else []
    raise typer.Exit(main([*flags, *as_json, "--", *map(str, files)]))


def _pinned(box: StrongBox, file: Path) -> str:
    """The key that was kept; the first time it is taken from the service, and said so."""
    if file.exists():
        return _read(file)
    key = box.audit.public_key()
    try:
        with file.open("x", encoding="ascii") as kept:
            kept.write(key)
    except OSError as error:
        complain(f"{file} cannot be written: {error.strerror}")
    typer.echo(f"strongbox: {file} did not exist: the key that the service gave is now kept there", err=True)
    return key


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        complain(f"{file} cannot be read")
