"""`strongbox kubernetes`: service accounts log in with their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongbox.cli.connect import connected
from strongbox.cli.input_values import read_file, to_text
from strongbox.cli.output import Format, Output, show, show_names, to_dict

app = typer.Typer(
    name="kubernetes", help="The API server, and roles of service accounts.", no_args_is_help=True
)
config_app = typer.Typer(name="config", help="Which API server reviews tokens.", no_args_is_help=True)
role_app = typer.Typer(name="role", help="Who may log in to what.", no_args_is_help=True)
app.add_typer(config_app)
app.add_typer(role_app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The role's name.")]


@config_app.command("write")
def config_write(
    host: Annotated[str, typer.Option(help="Such as https://10.0.0.1:6443.")],
    ca_file: Annotated[Path, typer.Option("--ca-file", help="Its authority's certificate, PEM.")],
    reviewer_file: Annotated[
        Path | None, typer.Option("--reviewer-file", help="A token that may review others; - is stdin.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Say which API server reviews tokens; needs sudo on auth/kubernetes/config."""
    authority = to_text(read_file(ca_file), "the certificate", "it is PEM")
    reviewer = to_text(read_file(reviewer_file), "the token", "it is text").strip() if reviewer_file else ""
    with connected() as box:
        show(to_dict(box.kubernetes.configure(host, authority, reviewer)), output)


@config_app.command("read")
def config_read(output: Output = Format.TABLE) -> None:
    """The configuration, without the reviewer's token."""
    with connected() as box:
        show(to_dict(box.kubernetes.config()), output)


@role_app.command("write")
def write(
    name: Name,
    service_account: Annotated[list[str], typer.Option("--service-account", help='A name, or "*".')],
    namespace: Annotated[list[str], typer.Option("--namespace", help='A name, or "*".')],
    policy: Annotated[list[str], typer.Option("--policy", help="A policy's name; may be repeated.")] = [],  # noqa: B006
    audience: Annotated[str, typer.Option(help="Whom tokens must be for.")] = "",
    token_ttl: Annotated[str | None, typer.Option(help="Of the tokens that logins give (1h).")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a role."""
    with connected() as box:
        answer = box.kubernetes.write(
            name, policy, service_accounts=service_account, namespaces=namespace, audience=audience,
            token_ttl=token_ttl,
        )  # fmt: skip
        show(to_dict(answer), output)


@role_app.command("read")
def read(name: Name, output: Output = Format.TABLE) -> None:
    """A role."""
    with connected() as box:
        show(to_dict(box.kubernetes.read(name)), output)


@role_app.command("list")
def list_names(output: Output = Format.TABLE) -> None:
    """Names of all roles."""
    with connected() as box:
        show_names(box.kubernetes.list(), output)


@role_app.command("delete")
def delete(name: Name, output: Output = Format.TABLE) -> None:
    """Remove a role."""
    with connected() as box:
        show(to_dict(box.kubernetes.delete(name)), output)
