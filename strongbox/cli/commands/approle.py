"""`strongbox approle`: how machines log in."""

from __future__ import annotations

from typing import Annotated

import typer

from strongbox.cli.connect import connected
from strongbox.cli.output import Format, Output, show, show_names, to_dict

app = typer.Typer(name="approle", help="Write, read, list and delete AppRoles.", no_args_is_help=True)
secret_id_app = typer.Typer(name="secret-id", help="Make and end secret ids.", no_args_is_help=True)
app.add_typer(secret_id_app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The AppRole's name.")]
Cidrs = Annotated[
    list[str], typer.Option("--bound-cidr", help="A network logins may come from; may be repeated.")
]


@app.command("write")
def write(
    name: Name,
    policy: Annotated[list[str], typer.Option("--policy", help="A policy's name; may be repeated.")] = [],  # noqa: B006
    token_ttl: Annotated[str | None, typer.Option(help="Of the tokens that logins give (1h).")] = None,
    token_max_ttl: Annotated[str | None, typer.Option(help="Renewals never go beyond (32d).")] = None,
    token_num_uses: Annotated[int, typer.Option(help="Uses of each token; 0: not limited.")] = 0,
    secret_id_ttl: Annotated[str | None, typer.Option(help="Of secret ids (32d).")] = None,
    secret_id_num_uses: Annotated[int, typer.Option(help="Logins of each; 0: not limited.")] = 0,
    bound_cidr: Cidrs = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    """Make or replace an AppRole; the answer has its role id, which stays."""
    with connected() as box:
        answer = box.approles.write(
            name, policy, token_ttl=token_ttl, token_max_ttl=token_max_ttl, token_num_uses=token_num_uses,
            secret_id_ttl=secret_id_ttl, secret_id_num_uses=secret_id_num_uses, bound_cidrs=bound_cidr,
        )  # fmt: skip
        show(to_dict(answer), output)


@app.command("read")
def read(name: Name, output: Output = Format.TABLE) -> None:
    """An AppRole with its role id."""
    with connected() as box:
        show(to_dict(box.approles.read(name)), output)


@app.command("list")
def list_names(output: Output = Format.TABLE) -> None:
    """Names of all AppRoles."""
    with connected() as box:
        show_names(box.approles.list(), output)


@app.command("delete")
def delete(name: Name, output: Output = Format.TABLE) -> None:
    """Remove an AppRole; its secret ids are worth nothing from then on."""
    with connected() as box:
        show(to_dict(box.approles.delete(name)), output)


@secret_id_app.command("create")
def create_secret_id(
    name: Name,
    ttl: Annotated[str | None, typer.Option(help="At most what the role says.")] = None,
    num_uses: Annotated[int, typer.Option(help="At most what the role says; 0: as it says.")] = 0,
    bound_cidr: Cidrs = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    """Make a secret id; it is printed here and kept nowhere."""
    with connected() as box:
        show(
            to_dict(box.approles.create_secret_id(name, ttl=ttl, num_uses=num_uses, bound_cidrs=bound_cidr)),
            output,
        )


@secret_id_app.command("revoke")
def revoke_secret_id(
    name: Name,
    accessor: Annotated[str, typer.Argument(metavar="ACCESSOR", help="The secret id's accessor.")],
    output: Output = Format.TABLE,
) -> None:
    """End a secret id."""
    with connected() as box:
        show(to_dict(box.approles.revoke_secret_id(name, accessor)), output)
