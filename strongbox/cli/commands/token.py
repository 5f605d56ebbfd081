"""`strongbox token`: the token in STRONGBOX_TOKEN, and others by their accessors."""

from __future__ import annotations

from typing import Annotated

import typer

from strongbox.cli.connect import complain, connected
from strongbox.cli.output import Format, Output, show, show_names, to_dict

app = typer.Typer(name="token", help="Make, look up, renew and revoke tokens.", no_args_is_help=True)

Accessor = Annotated[
    str, typer.Argument(metavar="[ACCESSOR]", help="Whose; the token in STRONGBOX_TOKEN when absent.")
]


@app.command("create")
def create(
    policy: Annotated[list[str], typer.Option("--policy", help="A policy's name; may be repeated.")] = [],  # noqa: B006
    ttl: Annotated[str | None, typer.Option(help="Such as 90s or 1h (1h).")] = None,
    max_ttl: Annotated[str | None, typer.Option(help="Renewals never go beyond.")] = None,
    period: Annotated[str | None, typer.Option(help="Renewed by this much each time.")] = None,
    display_name: Annotated[str, typer.Option(help="For people.")] = "",
    num_uses: Annotated[int, typer.Option(help="Good for so many requests; 0: not limited.")] = 0,
    orphan: Annotated[bool, typer.Option("--orphan", help="No child of the caller's (needs sudo).")] = False,
    no_default: Annotated[bool, typer.Option("--no-default", help="Without the policy `default`.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a child of the token in STRONGBOX_TOKEN; it is printed here and kept nowhere."""
    with connected() as box:
        answer = box.tokens.create(
            policy, ttl=ttl, max_ttl=max_ttl, period=period, display_name=display_name,
            num_uses=num_uses, orphan=orphan, no_default=no_default,
        )  # fmt: skip
        show(to_dict(answer), output)


@app.command("lookup")
def lookup(accessor: Accessor = "", output: Output = Format.TABLE) -> None:
    """What may be told of a token."""
    with connected() as box:
        show(to_dict(box.tokens.lookup(accessor) if accessor else box.tokens.lookup_self()), output)


@app.command("renew")
def renew(
    accessor: Accessor = "",
    increment: Annotated[str | None, typer.Option(help="For how long from now, such as 1h.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Move a token's expiry."""
    with connected() as box:
        if accessor:
            show(to_dict(box.tokens.renew(accessor, increment)), output)
        else:
            show(to_dict(box.tokens.renew_self(increment)), output)


@app.command("revoke")
def revoke(
    accessor: Annotated[str, typer.Argument(metavar="[ACCESSOR]", help="Whose.")] = "",
    own: Annotated[bool, typer.Option("--self", help="The token in STRONGBOX_TOKEN.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Revoke a token and its children, with their leases, at once."""
    if bool(accessor) == own:
        complain("name an accessor, or give --self")
    with connected() as box:
        show(to_dict(box.tokens.revoke_self() if own else box.tokens.revoke(accessor)), output)


@app.command("list")
def list_accessors(output: Output = Format.TABLE) -> None:
    """Accessors of live tokens."""
    with connected() as box:
        show_names(box.tokens.list(), output)
