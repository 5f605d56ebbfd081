"""Tests that start etcd, Envoy, PostgreSQL or a service are marked `processes`; `make quick` runs all others.

The mark is set here: on what is marked `cluster`, and on each test that starts one of them by its code or by
that of a fixture (tests/support/started.py). What is not found so has to be marked by hand: until then the
test fails when it starts one, in `make test` too. So `make quick` does not become slow unnoticed.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.started import program_of, starts

_running: list[pytest.Item] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Early enough: what `-m` leaves out is decided after this."""
    for item in items:
        if item.get_closest_marker("cluster") or any(map(starts, _functions(item))):
            item.add_marker("processes")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Say who runs, to `_watch`."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def _functions(item: pytest.Item) -> list[Any]:
    """The test and the fixtures that it uses; pytest tells the latter in no public way."""
    used = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    return [getattr(item, "obj", None), *(definitions[-1].func for definitions in used)]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or not _running:
        return
    if any(map(_running[-1].get_closest_marker, ("processes", "heavy"))):
        return
    if program := program_of(arguments[1]):
        # No Exception, so that no code on the way takes it for a failure of its own.
        pytest.fail(f"it starts {program}: mark it `processes`, and make quick leaves it out")


sys.addaudithook(_watch)
