"""`strongbox kv`: secrets and their versions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongbox.cli.connect import complain, connected
from strongbox.cli.input_values import read_json, read_secret, to_text
from strongbox.cli.output import Format, Output, say_bytes, show, show_line, show_names, to_dict, to_timestamp

if TYPE_CHECKING:
    from strongbox.client import Secret

app = typer.Typer(name="kv", help="Write, read, list and remove secrets.", no_args_is_help=True)
metadata_app = typer.Typer(name="metadata", help="All about a secret but its values.", no_args_is_help=True)
app.add_typer(metadata_app)

SecretPath = Annotated[str, typer.Argument(metavar="PATH", help="Such as app/db_password.")]
Versions = Annotated[list[int], typer.Option("--version", "-n", help="Which version; may be repeated.")]

ARGV = (
    "a value never goes on the command line, where others can read it: pipe it, or use --file or --data-file"
)


@app.command("put")
def put(
    path: SecretPath,
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="< VALUE")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="The value, as it is; - is stdin.")] = None,
    data_file: Annotated[
        Path | None, typer.Option("--data-file", help="A JSON object, stored as data; - is stdin.")
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="The value is bytes, not text.")] = False,
    cas: Annotated[int | None, typer.Option(help="The version that must be current; 0: none.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long this version lives, such as 90s or 1h.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a new version. The value comes from a pipe, a file, or a prompt.

    Of a pipe with one line the line end is left out, as echo adds it; text of several lines and, with
    --binary, bytes are stored exactly as they come, and so is a file. An empty pipe is refused, unless it is
    said that it is meant: --file -.
    """
    if extra:
        complain(ARGV)
    value = _value(file, data_file, binary)
    with connected() as box:
        show(to_dict(box.kv.put(path, value, cas=cas, ttl=ttl)), output)


def _value(file: Path | None, data_file: Path | None, binary: bool) -> str | bytes | dict[str, Any]:
    if data_file is not None:
        if file is not None or binary:
            complain("--data-file goes with neither --file nor --binary")
        data = read_json(data_file, "the data")
        return data if isinstance(data, dict) else complain("the data is not a JSON object")
    raw = read_secret(file, "Value", confirm=True, exact=binary)
    return raw if binary else to_text(raw, "the value", "give --binary")


@app.command("get")
def get(
    path: SecretPath,
    version: Annotated[int | None, typer.Option("--version", "-n", help="The newest unless given.")] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The value alone, byte for byte (but made visible on a terminal)."),
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Read one version's value."""
    with connected() as box:
        secret = box.kv.get(path, version)
    if raw:
        say_bytes(_bytes_of(secret.value))
    else:
        show(_facts(secret), output)


def _bytes_of(value: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


def _facts(secret: Secret) -> dict[str, Any]:
    """The answer with REST's names."""
    value: dict[str, Any]
    match secret.value:
        case bytes(content):
            value = {"binary": base64.b64encode(content).decode()}
        case str(text):
            value = {"value": text}
        case data:
            value = {"data": data}
    return {
        "path": secret.path,
        **value,
        "version": secret.version,
        "created_at": to_timestamp(secret.created_at),
        "lease": {
            "id": secret.lease_id,
            "ttl": secret.lease_ttl,
            "expires_at": to_timestamp(secret.lease_expires_at),
        },
        "revision": secret.revision,
    }


@app.command("list")
def list_names(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="A directory; all when absent.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All secrets below.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Names below a directory; a name that ends in a slash is a directory."""
    with connected() as box:
        show_names(box.kv.list(prefix, recursive=recursive), output)


@app.command("watch")
def watch(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="A directory; all when absent.")] = "",
    from_revision: Annotated[
        str, typer.Option(help="Begin with this revision, as an answer told it; now when absent.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """What changes below a directory, a line each, until Ctrl-C; it goes on over broken connections."""
    with connected() as box:
        for change in box.kv.watch(prefix, from_revision):
            show_line(change._asdict(), output)


@app.command("delete")
def delete(path: SecretPath, version: Versions = [], output: Output = Format.TABLE) -> None:  # noqa: B006
    """Soft delete versions, the newest unless named; undelete takes it back."""
    with connected() as box:
        show(to_dict(box.kv.delete(path, version)), output)


@app.command("undelete")
def undelete(path: SecretPath, version: Versions, output: Output = Format.TABLE) -> None:
    """Take a soft delete back."""
    with connected() as box:
        show(to_dict(box.kv.undelete(path, version)), output)


@app.command("destroy")
def destroy(path: SecretPath, version: Versions, output: Output = Format.TABLE) -> None:
    """Remove versions for good."""
    with connected() as box:
        show(to_dict(box.kv.destroy(path, version)), output)


@metadata_app.command("get")
def metadata_get(path: SecretPath, output: Output = Format.TABLE) -> None:
    """Settings, custom metadata, and every version's life."""
    with connected() as box:
        show(to_dict(box.kv.metadata(path)), output)


@metadata_app.command("set")
def metadata_set(
    path: SecretPath,
    max_versions: Annotated[int | None, typer.Option(help="How many versions are kept.")] = None,
    cas_required: Annotated[
        bool | None, typer.Option("--cas-required/--no-cas-required", help="Refuse writes without cas.")
    ] = None,
    custom_file: Annotated[
        Path | None,
        typer.Option(
            "--custom-file", help="A JSON object of text; replaces the custom metadata ({} empties it)."
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Change the settings that are given."""
    custom = read_json(custom_file, "the custom metadata") if custom_file else None
    if custom is not None and not _is_text(custom):
        complain("the custom metadata is not a JSON object of text")
    with connected() as box:
        answer = box.kv.update_metadata(
            path, max_versions=max_versions, cas_required=cas_required, custom=custom
        )
        show(to_dict(answer), output)


def _is_text(custom: Any) -> bool:
    return isinstance(custom, dict) and all(isinstance(value, str) for value in custom.values())


@metadata_app.command("delete")
def metadata_delete(path: SecretPath, output: Output = Format.TABLE) -> None:
    """Remove the secret, all versions and its metadata, for good."""
    with connected() as box:
        show(to_dict(box.kv.delete_metadata(path)), output)
