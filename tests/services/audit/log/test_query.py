"""Pages of entries: every filter against a plain scan, from both ends, and never too much work."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from services.audit.log import query
from services.audit.log.query import Filter, ascending, descending, filter_of
from services.audit.log.segments import Segments
from strongbox.audit_log.chain import GENESIS, link, timestamp
from strongbox.errors import InvalidInput
from tests.services.audit.logs import KEY, entry

START = 1_769_860_800_000
SIZE = 1500
LATER = time.monotonic() + 3600


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    """Entries of three operations, with times that go a little up and down, in several segments."""
    head, entries = GENESIS, []
    for number in range(SIZE):
        fields: dict[str, Any] = {
            "op": ("ReadSecret", "WriteSecret", 'Odd"op')[number % 3],
            "path": ("secret/app/db", "secret/app", 'secret/a"b', "auth/tokens")[number % 4],
            "outcome": "refused" if number % 10 == 0 else "ok",
            "accessor": f"accessor-{number % 7}",
            "ts": timestamp(START + 1000 * (number + 3 * (number % 2))),
        }
        made = link(KEY, head, entry(number, **fields))
        head = made.hmac
        entries.append(made)
    found = Segments(tmp_path_factory.mktemp("log"), segment_bytes=100_000)
    found.append(entries)
    return found


def asked(**fields: str) -> Any:
    names = ("path", "path_prefix", "accessor", "op", "outcome")
    return SimpleNamespace(**{name: fields.get(name, "") for name in names})


CASES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"op": "ReadSecret"}, {}),
    ({"op": 'Odd"op', "outcome": "refused"}, {}),
    ({"path": "secret/app"}, {}),
    ({"path_prefix": "secret/app"}, {}),
    ({"path_prefix": 'secret/a"', "accessor": "accessor-3"}, {}),
    ({"accessor": "accessor-9"}, {}),
    ({}, {"since": "2026-01-31T12:10:00Z", "until": "2026-01-31T12:15:30.5Z"}),
    ({"op": "WriteSecret"}, {"since": "2026-01-31T13:15:00.001+01:00"}),
    ({}, {"until": "2020-01-01T00:00:00Z"}),
]


def plain(log: Segments, fields: dict[str, str], times: dict[str, str]) -> list[int]:
    """What should be found, by reading everything."""

    def moment(text: str) -> str:
        return query._time(text, "", b"").decode()

    wanted = []
    for one in map(json.loads, log.read(0)):
        prefix = fields.get("path_prefix", "")
        same = all(one[name] == value for name, value in fields.items() if name != "path_prefix")
        in_time = ("since" not in times or one["ts"] >= moment(times["since"])) and (
            "until" not in times or one["ts"] < moment(times["until"])
        )
        if same and in_time and one["path"].startswith(prefix):
            wanted.append(one["index"])
    return wanted


@pytest.mark.parametrize(("fields", "times"), CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("limit", [7, 1000])
def test_all_pages_together_are_what_a_plain_scan_finds(
    log: Segments, fields: dict[str, str], times: dict[str, str], limit: int
) -> None:
    wanted, expected = filter_of(asked(**fields), **times), plain(log, fields, times)
    up: list[int] = []
    start: int | None = 0
    while start is not None:
        page = ascending(log, wanted, start, SIZE, limit, LATER)
        up += [json.loads(line)["index"] for line in page.lines]
        start = page.next_index
    assert up == expected
    down: list[int] = []
    end: int | None = SIZE
    while end is not None:
        page = descending(log, wanted, end, limit, LATER)
        down += [json.loads(line)["index"] for line in page.lines]
        end = page.next_index
    assert down == expected[::-1]


def test_what_is_not_chained_yet_is_not_told(log: Segments) -> None:
    assert len(ascending(log, Filter(), 0, 700, 1000, LATER).lines) == 700
    assert ascending(log, Filter(), 900, 700, 10, LATER) == ([], None)
    assert len(descending(log, Filter(), 700, 1000, LATER).lines) == 700
    assert descending(log, Filter(), 0, 10, LATER) == ([], None)


def test_one_call_looks_at_a_bounded_number_of_entries(
    log: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "MOST", 512)
    nothing = filter_of(asked(op="Nothing"))
    assert ascending(log, nothing, 0, SIZE, 10, LATER) == ([], 512)
    assert descending(log, nothing, SIZE, 10, LATER) == ([], 1024)
    assert ascending(log, nothing, 0, SIZE, 10, time.monotonic() - 1) == ([], 0)


def test_strides_of_another_time_are_not_read(log: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    lines = Segments.lines
    monkeypatch.setattr(
        Segments, "lines", lambda self, start, stop: read.append(start // 256) or lines(self, start, stop)
    )
    late = filter_of(asked(), since="2026-01-31T12:24:00Z")
    assert len(ascending(log, late, 0, SIZE, 1000, LATER).lines) == 62
    assert read == [5]


@pytest.mark.parametrize("text", ["now", "2026-01-31", "2026-01-31T12:00:00", "1e9"])
def test_times_without_a_zone_or_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="since"):
        filter_of(asked(), since=text)
