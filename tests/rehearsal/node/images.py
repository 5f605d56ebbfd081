"""What an image has in it: ours as the Containerfile's last stage says, etcd's and Envoy's binaries as here.

A container's root is made of links to this machine's own system folders, which are mounted at /host, and of
the folders that the image brings; so nothing of the checkout is there that is not copied into the image.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from strongbox.dev.processes.envoy import envoy_binary
from tests.support.etcd import etcd_binary

ROOT = Path(__file__).resolve().parents[3]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """`binds`: what is where, path in the image to path here. `shell`: it has a system's programs too."""

    name: str
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    folder: str = "/"
    user: str = "0:0"
    binds: dict[str, str] = field(default_factory=dict)
    shell: bool = True


class Images:
    """By the manifests' names; each tag of ours is a copy of the checkout, made when first asked for."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, Image] = {}

    def get(self, reference: str) -> Image:
        """Raises LookupError for an image that is in no registry: another's, or with a tag `…-missing`."""
        name = reference.rpartition(":")[0].rpartition("/")[2]
        if name not in ("strongbox", "etcd", "envoy") or reference.endswith("-missing"):
            raise LookupError(f"ImagePullBackOff: {reference}")
        if reference not in self._known:
            if name == "strongbox":
                image = from_containerfile(ROOT / "Containerfile", self._place / reference.replace("/", "_"))
            else:
                binary = etcd_binary() if name == "etcd" else envoy_binary()
                image = Image(name, binds={f"/usr/local/bin/{name}": str(binary)}, shell=False)
            self._known[reference] = image
        return self._known[reference]


def from_containerfile(file: Path, place: Path) -> Image:
    """The last stage's image, its files copied to `place`. Raises ValueError for what is not understood."""
    image = Image("strongbox")
    for words in _last_stage(file):
        match words[0], words[1:]:
            case "FROM", _:
                pass
            case "COPY", ["--from=build", _, target] if target.endswith("/venv"):
                image.binds |= _environment_of_python(target)
            case "COPY", [source, target]:
                copied = place / target.lstrip("/")
                shutil.copytree(
                    file.parent / source,
                    copied,
                    ignore=shutil.ignore_patterns("__pycache__"),
                    dirs_exist_ok=True,
                )
                image.binds[target] = str(copied)
            case "ENV", pairs:
                image.environment |= dict(pair.split("=", 1) for pair in pairs)
            case "WORKDIR", [folder]:
                image.folder = folder
            case "USER", [user]:
                image.user = user
            case "ENTRYPOINT", _:
                image.entrypoint = json.loads(" ".join(words[1:]))
            case "CMD", _:
                image.command = json.loads(" ".join(words[1:]))
            case _:
                raise ValueError(f"{file}: {words[0]} is not understood")
    return image


def _last_stage(file: Path) -> list[list[str]]:
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    begins = max(number for number, words in enumerate(lines) if words[0] == "FROM")
    return lines[begins:]


def _environment_of_python(target: str) -> dict[str, str]:
    """This process's own virtual environment and the Python below it."""
    found = {target: sys.prefix}
    base = Path(sys.base_prefix).resolve()
    if not base.is_relative_to("/usr"):
        found[str(base)] = str(base)
    return found
