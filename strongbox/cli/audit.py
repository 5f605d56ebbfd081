"""`strongbox audit`: the tamper-evident log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongbox.cli.output import Format, Output, show_rows, to_dict
from strongbox.cli.session import connected

app = typer.Typer(name="audit", help="Read the audit log, and verify it.", no_args_is_help=True)

COLUMNS = ("index", "ts", "op", "path", "outcome", "reason", "accessor", "client")


@app.command("list")
def list_entries(
    from_index: Annotated[int, typer.Option("--from", help="The first index.")] = 0,
    limit: Annotated[int, typer.Option(help="How many at most, up to 1000.")] = 100,
    path: Annotated[str, typer.Option(help="Only those of this policy path.")] = "",
    accessor: Annotated[str, typer.Option(help="Only those of this token.")] = "",
    op: Annotated[str, typer.Option(help="Only this operation, such as ReadSecret.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Entries in ascending order; the log holds all that was acknowledged before."""
    with connected() as box:
        page = box.audit.page(from_index, limit, path=path, accessor=accessor, op=op)
        show_rows(map(to_dict, page.entries), COLUMNS, output)


@app.command("export-key")
def export_key() -> None:
    """Print the key that verifies the log, for --key-file; whoever has it can forge entries."""
    with connected() as box:
        typer.echo(box.audit.export_key(), nl=False)


@app.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The log's segments in order.")],
    key_file: Annotated[Path | None, typer.Option("--key-file", help="What export-key printed.")] = None,
) -> None:
    """Check log files offline, as strongbox-verify does. Exit 0 intact, 1 tampered, 2 cannot be read."""
    from services.audit.verify import main

    key = ["--key-file", str(key_file)] if key_file else []
    raise typer.Exit(main([*key, "--", *map(str, files)]))
