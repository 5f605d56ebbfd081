"""The picture of rooms in docs/architecture.md is the one that tools/draw_rooms.py draws from the imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import draw_rooms
from tools.draw_rooms import BEGIN, END, CannotDraw, Code, Drawing, draw, redrawn

HOUSE = {
    "services/__init__.py": "",
    "services/kv/__init__.py": '"""The kv service: secrets, and more."""',
    "services/kv/servicer.py": """
from services.kv import rules
from . import letters
import strongbox.store.client
""",
    "services/kv/rules.py": "from services.kv import letters",
    "services/kv/letters.py": "",
    "services/kv/lonely.py": "",
    "strongbox/__init__.py": "",
    "strongbox/store/__init__.py": '"""etcd. And more."""',
    "strongbox/store/client.py": """
def late():
    from strongbox.crypto import seal
    from strongbox.kv.v1 import kv_pb2
""",
    "strongbox/crypto.py": '"""Ciphers: all of\nthem."""\nimport re',
    "strongbox/kv/v1/__init__.py": "",
    "strongbox/kv/v1/kv_pb2.py": "",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in HOUSE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_page_shows_the_rooms_as_they_are() -> None:
    page = (draw_rooms.ROOT / draw_rooms.PAGE).read_text("utf-8")
    assert page == redrawn(page, draw(draw_rooms.ROOT)), "make map"


def test_services_and_rooms_are_drawn_with_what_they_import_wherever_it_is_imported(house: Path) -> None:
    drawn = [" ".join(line.split()) for line in draw(house).splitlines()]
    assert drawn[1:6] == [
        "services.kv Secrets, and more > store",
        "",
        "store etcd > crypto protos",
        "crypto Ciphers",
        "protos Generated from protos/",
    ]


def test_what_follows_from_two_arrows_is_left_out_and_a_room_without_any_is_there(house: Path) -> None:
    drawn = draw(house).splitlines()
    kv = drawn[drawn.index("services.kv") :]
    assert kv[1:3] == ["  servicer > rules > letters", "  lonely"]


def test_a_new_import_makes_the_page_stale(house: Path) -> None:
    page = redrawn(f"above\n{BEGIN}{END}below\n", draw(house))
    assert page == redrawn(page, draw(house))
    (house / "strongbox/crypto.py").write_text("from strongbox.kv.v1 import kv_pb2")
    assert page != redrawn(page, draw(house))


def test_what_stands_around_the_marks_stays(house: Path) -> None:
    page = redrawn(f"above\n{BEGIN}old\n{END}below\n", "new\n")
    assert page == f"above\n{BEGIN}new\n{END}below\n"


@pytest.mark.parametrize("page", ["no mark\n", f"{BEGIN}no end\n", f"{END}{BEGIN}"])
def test_a_page_without_its_marks_is_not_drawn_upon(page: str) -> None:
    with pytest.raises(CannotDraw):
        redrawn(page, "new\n")


def test_a_circle_is_told_and_not_drawn(house: Path) -> None:
    (house / "services/kv/letters.py").write_text("import services.kv.servicer")
    with pytest.raises(CannotDraw, match=r"in a circle: .*servicer > (rules > )?letters"):
        draw(house)


def test_no_arrow_is_lost_whatever_is_left_out() -> None:
    """What can be reached by the arrows that are drawn is what can be reached by the imports."""
    code = Code(draw_rooms.ROOT)
    for graph in (code.whole(), code.rooms("services.seal"), code.rooms("services.auth")):
        drawing = Drawing(graph)
        drawn = {room: frozenset(drawing.arrows(room)) for room in graph}
        assert {room: _reached(graph, room) for room in graph} == {
            room: _reached(drawn, room) for room in graph
        }
        assert all(drawn[room] <= graph[room] for room in graph)


def _reached(graph: draw_rooms.Graph, room: str) -> frozenset[str]:
    return graph[room].union(*(_reached(graph, one) for one in graph[room]))
