"""A fake StrongBox, and the client connected to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from strongbox.client import StrongBox
from tests.support.fake_strongbox import TOKEN, World, serving


@pytest.fixture
def world() -> Iterator[World]:
    with serving(World()) as running:
        yield running


@pytest.fixture
def box(world: World) -> Iterator[StrongBox]:
    with StrongBox(f"http://{world.target}", token=TOKEN) as client:
        yield client
