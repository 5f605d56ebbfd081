"""`strongbox postgres`: short-lived database credentials, and what they are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongbox.cli.connect import connected
from strongbox.cli.input_values import read_file, read_secret, to_text, without_line_end
from strongbox.cli.output import Format, Output, is_json, show, show_names, show_rows, to_dict, visible

app = typer.Typer(name="postgres", help="Short-lived PostgreSQL credentials.", no_args_is_help=True)
connection = typer.Typer(help="Servers and the users by whom roles are made.", no_args_is_help=True)
role = typer.Typer(help="What credentials of a name may do and how long they live.", no_args_is_help=True)
app.add_typer(connection, name="connection")
app.add_typer(role, name="role")

ConnectionName = Annotated[str, typer.Argument(metavar="NAME", help="The connection's name.")]
RoleName = Annotated[str, typer.Argument(metavar="ROLE", help="The database role's name.")]


@app.command("issue")
def issue(name: RoleName, output: Output = Format.TABLE) -> None:
    """Make a credential; its password is printed here and kept nowhere."""
    with connected() as box:
        show(to_dict(box.postgres.issue(name)), output)


@app.command("inspect")
def inspect(name: ConnectionName, output: Output = Format.TABLE) -> None:
    """What the connection's user owns in each database that it may enter, and how to hand it over.

    Earlier versions gave it what credentials had made: give that to the template, or drop it. Whoever uses
    what runs_as_owner does so with that user's rights. What the user made itself is listed as well.
    """
    with connected() as box:
        found = box.postgres.inspect(name)
    if is_json(output):
        show(to_dict(found), output)
        return
    show_rows(
        map(to_dict, found.objects), ("database", "runs_as_owner", "type", "identity", "hand_over"), output
    )
    if found.more:
        typer.echo("there are more: hand these over, and ask again", err=True)
    if found.databases_left_out:
        typer.echo(visible(f"not looked into: {' '.join(found.databases_left_out)}"), err=True)


@connection.command("write")
def write_connection(
    name: ConnectionName,
    dsn: Annotated[str, typer.Option(help="postgresql://host:port/database, without password.")],
    username: Annotated[str, typer.Option(help="A superuser, or one that may create roles.")] = "",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="Its password; stdin or a prompt when absent.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option("--ca-file", help="The authority to trust, PEM.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a connection, after trying it. The password never comes from the command line."""
    raw = without_line_end(read_secret(password_file, "Password of the database user", exact=True))
    password = to_text(raw, "the password", "it must be text")
    ca = to_text(read_file(ca_file), "the authority", "it must be PEM") if ca_file else ""
    with connected() as box:
        answer = box.postgres.write_connection(name, dsn=dsn, username=username, password=password, ca=ca)
        show(to_dict(answer), output)


@connection.command("read")
def read_connection(name: ConnectionName, output: Output = Format.TABLE) -> None:
    """A connection, without its password."""
    with connected() as box:
        show(to_dict(box.postgres.read_connection(name)), output)


@connection.command("list")
def list_connections(output: Output = Format.TABLE) -> None:
    """Names of all connections."""
    with connected() as box:
        show_names(box.postgres.list_connections(), output)


@connection.command("delete")
def delete_connection(
    name: ConnectionName,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke its credentials first.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Remove a connection; refused while credentials of it live."""
    with connected() as box:
        show(to_dict(box.postgres.delete_connection(name, revoke_leases=revoke)), output)


@connection.command("rotate-root")
def rotate_root(name: ConnectionName, output: Output = Format.TABLE) -> None:
    """Give the connection's user a password that only StrongBox knows."""
    with connected() as box:
        show(to_dict(box.postgres.rotate_root(name)), output)


@role.command("write")
def write_role(
    name: RoleName,
    connection_name: Annotated[str, typer.Option("--connection", help="Where its credentials are made.")],
    template: Annotated[str, typer.Option("--template-role", help="Each is a member of this role.")],
    default_ttl: Annotated[str | None, typer.Option(help="Such as 90s or 1h (1h).")] = None,
    max_ttl: Annotated[str | None, typer.Option(help="Renewals never go beyond (24h).")] = None,
    max_leases: Annotated[int, typer.Option(help="How many may live at once (10000).")] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a database role."""
    with connected() as box:
        answer = box.postgres.write_role(
            name, connection=connection_name, template_role=template, default_ttl=default_ttl,
            max_ttl=max_ttl, max_leases=max_leases,
        )  # fmt: skip
        show(to_dict(answer), output)


@role.command("read")
def read_role(name: RoleName, output: Output = Format.TABLE) -> None:
    """A database role, and how many credentials of it live."""
    with connected() as box:
        show(to_dict(box.postgres.read_role(name)), output)


@role.command("list")
def list_roles(output: Output = Format.TABLE) -> None:
    """Names of all database roles."""
    with connected() as box:
        show_names(box.postgres.list_roles(), output)


@role.command("delete")
def delete_role(name: RoleName, output: Output = Format.TABLE) -> None:
    """Remove a database role; credentials made from it live on until they expire."""
    with connected() as box:
        show(to_dict(box.postgres.delete_role(name)), output)
