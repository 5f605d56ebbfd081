"""`strongbox lease`: who holds what until when."""

from __future__ import annotations

from typing import Annotated

import typer

from strongbox.cli.connect import complain, connected
from strongbox.cli.output import Format, Output, show, show_rows, to_dict

app = typer.Typer(name="lease", help="Look at leases and end them.", no_args_is_help=True)

LeaseId = Annotated[str, typer.Argument(metavar="ID", help="The lease's id.")]


@app.command("get")
def get(lease_id: LeaseId, output: Output = Format.TABLE) -> None:
    """One lease."""
    with connected() as box:
        show(to_dict(box.leases.get(lease_id)), output)


@app.command("list")
def list_leases(
    path: Annotated[str, typer.Option(help="Of this policy path, such as secret/app/db.")] = "",
    accessor: Annotated[str, typer.Option(help="Of this token.")] = "",
    state: Annotated[str, typer.Option(help="Only those in this state, such as ACTIVE.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Leases of a path or of a token; one of the two is needed."""
    if bool(path) == bool(accessor):
        complain("give --path or --accessor")
    with connected() as box:
        found = map(to_dict, box.leases.list(path=path, accessor=accessor, state=state))
        show_rows(found, ("id", "state", "path", "accessor", "expires_at", "attempts", "last_error"), output)


@app.command("renew")
def renew(
    lease_id: LeaseId,
    increment: Annotated[str | None, typer.Option(help="For how long from now, such as 1h.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Move a lease's expiry; a database user's password is taken as long."""
    with connected() as box:
        show(to_dict(box.leases.renew(lease_id, increment)), output)


@app.command("revoke-prefix")
def revoke_prefix(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Such as dynamic-postgres/readonly.")],
    output: Output = Format.TABLE,
) -> None:
    """End all leases whose policy path begins so."""
    with connected() as box:
        revoked, pending = box.leases.revoke_prefix(prefix)
        show({"revoked": revoked, "pending": pending}, output)


@app.command("revoke")
def revoke(lease_id: LeaseId, output: Output = Format.TABLE) -> None:
    """End a lease, and the database user that it stands for."""
    with connected() as box:
        show(to_dict(box.leases.revoke(lease_id)), output)
