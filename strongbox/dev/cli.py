"""`strongbox dev up|down|status`. Exit 0, or 1 with the reason on stderr; 2 for a wrong command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from strongbox.dev.layout import Wishes
from strongbox.dev.runner import commands
from strongbox.dev.runner.commands import DevError, Up

app = typer.Typer(help="A cluster on this machine, for trying out and for tests.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="The cluster's folder.")]


@app.command()
def up(
    nodes: Annotated[int | None, typer.Option(help="1 or 3 (3 unless DIR holds a cluster).")] = None,
    data: Data = commands.DEFAULT_FOLDER,
    base_port: Annotated[int | None, typer.Option(help="Node n's gateway is this + n (8200).")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when every node answers.")] = False,
    unseal: Annotated[
        bool, typer.Option("--unseal", help="Init if need be, and unseal (DIR/init.json).")
    ] = False,
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="A TLS listener beside each plain one.")
    ] = None,
    postgres: Annotated[
        bool | None, typer.Option("--postgres/--no-postgres", help="A PostgreSQL beside it.")
    ] = None,
    hosts: Annotated[
        Path | None, typer.Option(metavar="FILE", hidden=True, help="Where each node lives (JSON).")
    ] = None,
    node: Annotated[
        str | None, typer.Option(metavar="NODE", help="Start what is dead of this node only.")
    ] = None,
) -> None:
    """Start a cluster, new or from DIR, and run it until Ctrl-C."""
    if nodes not in (None, 1, 3):
        raise typer.BadParameter("a cluster has 1 or 3 nodes", param_hint="--nodes")
    with _telling():
        asked = Up(
            data.resolve(),
            Wishes(nodes, base_port, tls, postgres, _read_hosts(hosts) if hosts else None),
            unseal=unseal,
            node=node,
        )
        if node and commands.start_node(asked.folder, node):
            _tell(f"{node} is up")
        elif detach:
            commands.up_detached(asked)
            _tell(f"up: {asked.folder / 'cluster.json'}")
        else:
            commands.up(asked, _tell)


def _read_hosts(file: Path) -> Any:
    with commands.in_words():
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise DevError(f"{file} is not JSON") from None


@app.command()
def down(data: Data = commands.DEFAULT_FOLDER) -> None:
    """Stop every process of the cluster in DIR; its data stay."""
    with _telling():
        _tell(f"stopped {commands.down(data.resolve())} processes")


@app.command()
def status(
    data: Data = commands.DEFAULT_FOLDER,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Which processes of the cluster in DIR run. Exit 1 when one does not."""
    with _telling():
        found = commands.status(data.resolve())
    if output == "json":
        typer.echo(json.dumps(found, indent=1))
    else:
        for each in found:
            state = "running" if each["running"] else "dead"
            typer.echo(f"{each['node']:10} {each['name']:10} {state:8} {each['pid']:>8}  {each['address']}")
    raise typer.Exit(0 if all(each["running"] for each in found) else 1)


certs = typer.Typer(help="The cluster's certificates.", no_args_is_help=True)
app.add_typer(certs, name="certs")


@certs.command()
def rotate(data: Data = commands.DEFAULT_FOLDER) -> None:
    """New keys and certificates for every process, while they run; the authority stays."""
    with _telling():
        nodes = commands.rotate_certificates(data.resolve())
    _tell(f"renewed the certificates of {nodes} nodes; running processes take them up within seconds")


def _tell(text: str) -> None:
    typer.echo(text)


@contextmanager
def _telling() -> Iterator[None]:
    """What cannot be done is told in a sentence, and is exit 1."""
    try:
        yield
    except DevError as error:
        typer.echo(f"strongbox dev: {error}", err=True)
        raise typer.Exit(1) from None
