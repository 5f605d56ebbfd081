"""The commands of docs/deploying.md: its blocks of shell, and those that stand in a sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal.node.images import ROOT

PAGE = ROOT / "docs" / "deploying.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
# Whole commands: "`kubectl apply`" is the name of one, and "…" stands for what the reader knows.
_INLINE = re.compile(r"`((?:kubectl|etcdctl|etcdutl|strongbox|buildah|curl) [^`…]+ [^`…]+)`")

# What no rehearsal runs, and why; each has to stand on the page, or this list is out of date.
NOT_RUN = {
    "buildah bud": "the image is a copy of the checkout (tests/image/build.sh builds the real one)",
    "strongbox dev up": "it is of the local cluster, which other tests are about",
    "strongbox operator init": "curl has done it, as the page says first",
    "kubectl -n shop create configmap": "the account that logs in here has its certificate from the scene",
    "strongbox lease revoke-prefix": "there is no PostgreSQL here, and so no lease",
    "kubectl delete node": "the nodes are names; what is lost with one is lost by itself (steps/lost.py)",
}


@dataclass(frozen=True)
class Command:
    """A block of commands or one from a sentence, and the section that it stands in."""

    section: str
    text: str


def blocks(page: Path = PAGE) -> list[Command]:
    """In the order of the page."""
    return _found(page, _BLOCK)


def inline(page: Path = PAGE) -> list[Command]:
    """Those in sentences: whole commands between backticks."""
    without = _BLOCK.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
    return [Command(_section(without, found.start()), found[1]) for found in _INLINE.finditer(without)]


def _found(page: Path, pattern: re.Pattern[str]) -> list[Command]:
    text = page.read_text(encoding="utf-8")
    return [Command(_section(text, found.start()), found[1]) for found in pattern.finditer(text)]


def _section(text: str, at: int) -> str:
    titles = re.findall(r"^## (.*)$", text[:at], re.M)
    return str(titles[-1]) if titles else ""


class Page:
    """Gives commands out by what they contain, and remembers which nobody has asked for."""

    def __init__(self, overlay: str, page: Path = PAGE) -> None:
        self._overlay = overlay
        self._left = [
            one
            for one in [*blocks(page), *inline(page)]
            if not any(one.text.lstrip().startswith(start) for start in NOT_RUN)
        ]

    def take(self, part: str) -> str:
        """The first command left that has `part` in it, for this rehearsal's overlay. Raises LookupError."""
        for one in self._left:
            if part in one.text:
                self._left.remove(one)
                return self._for_overlay(one.text)
        raise LookupError(f"docs/deploying.md has no command (left) with {part!r} in it")

    def has(self, part: str) -> bool:
        return any(part in one.text for one in self._left)

    def left(self) -> list[str]:
        """What was never run, as `section: command`."""
        return [f"{one.section}: {one.text.strip()}" for one in self._left]

    def _for_overlay(self, text: str) -> str:
        return text.replace("k8s/overlays/prod", f"k8s/overlays/{self._overlay}")
