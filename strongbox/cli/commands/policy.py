"""`strongbox policy`: what tokens may do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongbox.cli.connect import FAILED, connected
from strongbox.cli.output import Format, Output, show, show_names, show_rows, to_dict

app = typer.Typer(name="policy", help="Write, read, list and delete policies.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The policy's name.")]


@app.command("write")
def write(
    name: Name,
    file: Annotated[Path | None, typer.Option("--file", help="The policy; stdin when absent.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make or replace a policy from JSON: {"rules": [{"path": "secret/app/*", "capabilities": ["read"]}]}."""
    from strongbox.cli.policy_file import read_policy

    rules = read_policy(file, name).rules
    with connected() as box:
        show(to_dict(box.policies.write(name, rules)), output)


@app.command("test")
def try_cases(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Policies, tokens and cases; see docs.")],
    output: Output = Format.TABLE,
) -> None:
    """Test policies kept in files against a table of token, path, capability and what is expected.

    No server is asked. Exit 1 when a case does not hold, 2 when the file makes no sense.
    """
    from strongbox.cli.policy_test import run

    results = run(file)
    rows = [{**one._asdict(), "": "" if one.holds else "FAILED"} for one in results]
    show_rows(rows, ("token", "path", "capability", "expected", "decided", "rule", ""), output)
    failed = sum(not one.holds for one in results)
    typer.echo(f"{len(results) - failed} passed, {failed} failed", err=True)
    raise typer.Exit(FAILED if failed else 0)


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
