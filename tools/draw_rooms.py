"""Draw the rooms in docs/architecture.md: `python -m tools.draw_rooms [--check]` (`make map`).

Between two marks in that page stands what the code says: which rooms strongbox/ and services/ have, what each
is for (the first words of its docstring), and which imports which. An arrow that follows from others is left
out, so there are few. Generated modules are one room, `protos`. `--check` writes nothing and exits 1 when the
page says otherwise.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/architecture.md")
BEGIN = "<!-- Drawn from the imports by `make map`: what is changed here by hand is lost. -->\n"
END = "<!-- The end of what is drawn. -->\n"
PROTOS = "protos"
PURPOSE = 48  # characters, so that a line needs no scrolling

Graph = Mapping[str, frozenset[str]]
"""Each room, and what it imports."""


class CannotDraw(Exception):
    """Imports in a circle, or a page without the two marks; the text says which."""


class Code:
    """The modules of services/ and strongbox/ below `root`, and what each imports of them.

    A room is a file or a folder right inside a package; its name there stands for all that is in it.
    """

    def __init__(self, root: Path) -> None:
        self._files = {_module(path.relative_to(root)): path for path in _sources(root)}
        self._trees = {name: ast.parse(path.read_bytes()) for name, path in self._files.items()}
        self._imports = {name: frozenset(self._imported(name)) for name in self._files}
        self._generated = {_inside(name, "strongbox") for name in self._files if "_pb2" in name}

    def whole(self) -> Graph:
        """Every service, as `services.kv`, and every room of strongbox."""
        return self._graph(self._service_or_room)

    def rooms(self, package: str) -> Graph:
        """The rooms of one package."""
        return self._graph(lambda module: _inside(module, package))

    def purpose(self, room: str) -> str:
        """What the docstring of a service or a room of strongbox says first."""
        if room == PROTOS:
            return "Generated from protos/"
        tree = self._trees.get(room) or self._trees[f"strongbox.{room}"]
        return _first_words(ast.get_docstring(tree) or "")

    def _service_or_room(self, module: str) -> str:
        if service := _inside(module, "services"):
            return f"services.{service}"
        room = _inside(module, "strongbox")
        return PROTOS if room in self._generated else room

    def _graph(self, room_of: Callable[[str], str]) -> Graph:
        found: dict[str, set[str]] = {}
        for module, imported in self._imports.items():
            if room := room_of(module):
                found.setdefault(room, set()).update(map(room_of, imported))
        return {room: frozenset(found[room] - {room, ""}) for room in sorted(found)}

    def _imported(self, module: str) -> Iterator[str]:
        """Modules of ours, wherever in the file they are imported."""
        is_package = self._files[module].name == "__init__.py"
        package = module if is_package else module.rpartition(".")[0]
        for node in ast.walk(self._trees[module]):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names if name.name in self._files)
            elif isinstance(node, ast.ImportFrom):
                source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                for name in node.names:  # a module of the package, or what its __init__ holds
                    yield from [one for one in (f"{source}.{name.name}", source) if one in self._files][:1]


def _sources(root: Path) -> Iterator[Path]:
    for top in ("services", "strongbox"):
        yield from sorted((root / top).rglob("*.py"))


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _inside(module: str, package: str) -> str:
    """The room of `package` that the module is in; empty when it is in none."""
    return module.removeprefix(f"{package}.").partition(".")[0] if module.startswith(f"{package}.") else ""


def _first_words(docstring: str) -> str:
    """Up to a full stop, colon or semicolon; up to a comma if that is too long."""
    said = re.sub(r"^The \w+ service: (.)", lambda match: match[1].upper(), " ".join(docstring.split()))
    words = re.split(r"[.:;](?: |$)", said)[0]
    if len(words) > PURPOSE and "," in words[:PURPOSE]:
        words = words[: words.rindex(",", 0, PURPOSE)]
    return textwrap.shorten(words, PURPOSE, placeholder=" …")


class Drawing:
    """A graph, from top to bottom: `order` has each room above all that it imports. Raises CannotDraw."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._below = cache(self._find_below)
        heights: dict[str, int] = {}
        for room in _lowest_first(graph):
            heights[room] = 1 + max((heights[one] for one in graph[room]), default=-1)
        self.order = sorted(graph, key=lambda room: (-heights[room], room))

    def arrows(self, room: str) -> list[str]:
        """What it imports, without what follows from another of its arrows."""
        follows = frozenset[str]().union(*map(self._below, self._graph[room]))
        return [one for one in self.order if one in self._graph[room] - follows]

    def chains(self) -> list[str]:
        """Lines like `a > b > c d`: a imports b, which imports c and d. A room's arrows stand once."""
        drawn: set[str] = set()
        return [self._chain(room, drawn) for room in self.order if room not in drawn and self._graph[room]]

    def _chain(self, room: str, drawn: set[str]) -> str:
        line = [room]
        arrows = self.arrows(room)
        drawn.add(room)
        while len(arrows) == 1 and arrows[0] not in drawn and self._graph[arrows[0]]:
            (room,) = arrows
            line.append(room)
            drawn.add(room)
            arrows = self.arrows(room)
        return " > ".join([*line, " ".join(arrows)])

    def _find_below(self, room: str) -> frozenset[str]:
        return self._graph[room].union(*map(self._below, self._graph[room]))


def _lowest_first(graph: Graph) -> list[str]:
    try:
        return list(TopologicalSorter({room: sorted(graph[room]) for room in graph}).static_order())
    except CycleError as circle:
        raise CannotDraw(f"imports in a circle: {' > '.join(reversed(circle.args[1]))}") from circle


def draw(root: Path) -> str:
    """What belongs between the two marks. Raises CannotDraw."""
    code = Code(root)
    whole = Drawing(code.whole())
    services = [room for room in whole.order if room.startswith("services.")]
    shared = [room for room in whole.order if room not in services]
    lines = [_line(code, whole, room) for room in services] + [
        "",
        *(_line(code, whole, one) for one in shared),
    ]
    for package in [*sorted(services), "strongbox.store"]:
        rooms = code.rooms(package)
        alone = [room for room in rooms if not rooms[room] and not any(room in one for one in rooms.values())]
        lines += ["", f"{package}", *(f"  {chain}" for chain in [*Drawing(rooms).chains(), *alone])]
    return "\n".join(["```", *lines, "```", ""])


def _line(code: Code, drawing: Drawing, room: str) -> str:
    arrows = " ".join(drawing.arrows(room))
    return f"{room:15} {code.purpose(room):{PURPOSE}} {'> ' + arrows if arrows else ''}".rstrip()


def redrawn(page: str, drawing: str) -> str:
    """The page with this drawing between its marks. Raises CannotDraw."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise CannotDraw(f"the page lacks a mark: {(END if begin else BEGIN).strip()}")
    return f"{head}{BEGIN}{drawing}{END}{tail}"


def main(words: list[str]) -> int:
    """The exit code."""
    page = ROOT / PAGE
    now = page.read_text("utf-8")
    try:
        fresh = redrawn(now, draw(ROOT))
    except CannotDraw as why:
        print(f"{PAGE}: {why}", file=sys.stderr)
        return 1
    if words == ["--check"]:
        if fresh != now:
            print(f"{PAGE}: its rooms are not those of the code; run `make map` and commit", file=sys.stderr)
        return int(fresh != now)
    page.write_text(fresh, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
