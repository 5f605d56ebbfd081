"""`strongbox policy`: what tokens may do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from strongbox.cli.intake import read_json
from strongbox.cli.output import Format, Output, show, show_names, to_dict
from strongbox.cli.session import FAILED, complain, connected

app = typer.Typer(name="policy", help="Write, read, list and delete policies.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The policy's name.")]


@app.command("write")
def write(
    name: Name,
    file: Annotated[Path | None, typer.Option("--file", help="The policy; stdin when absent.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a policy from JSON: {"rules": [{"path": "secret/app/*", "capabilities": ["read"]}]}."""
    rules = _rules(read_json(file, "the policy"), name)
    with connected() as box:
        show(to_dict(box.policies.write(name, rules)), output)


def _rules(document: Any, name: str) -> list[Any]:
    """The rules, when the document has them, perhaps this name, and nothing else: misspelt is refused."""
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        complain('the policy is not {"rules": […]}')
    if document.keys() - {"rules", "name"} or document.get("name", name) != name:
        complain('the policy has fields other than "rules", or another name')
    rules: list[Any] = document["rules"]
    return rules


@app.command("read")
def read(name: Name, output: Output = Format.TABLE) -> None:
    """A policy's rules."""
    with connected() as box:
        show(to_dict(box.policies.read(name)), output)


@app.command("list")
def list_names(output: Output = Format.TABLE) -> None:
    """Names of all policies."""
    with connected() as box:
        show_names(box.policies.list(), output)


@app.command("explain")
def explain(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A policy path, such as secret/app/db.")],
    capability: Annotated[str, typer.Argument(metavar="CAPABILITY", help="Such as read.")],
    accessor: Annotated[str, typer.Option(help="Of this token.")] = "",
    policy: Annotated[list[str], typer.Option("--policy", help="Of these policies; may be repeated.")] = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    """Which rule decides, and what is missing.

    The token in STRONGBOX_TOKEN unless said. Exit 1: not allowed.
    """
    with connected() as box:
        if not accessor and not policy:
            accessor = box.tokens.lookup_self().accessor
        answer = box.policies.explain(path, capability, accessor=accessor, policies=policy)
    show(to_dict(answer), output)
    raise typer.Exit(0 if answer.allowed else FAILED)


@app.command("delete")
def delete(name: Name, output: Output = Format.TABLE) -> None:
    """Remove a policy; tokens that name it are refused from then on."""
    with connected() as box:
        show(to_dict(box.policies.delete(name)), output)
