"""The command, run in this process against a fake StrongBox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest
from typer.testing import CliRunner, Result

from strongbox.cli.app import build
from tests.support.fake_strongbox import TOKEN, World, serving


class Run(Protocol):
    """Runs `strongbox` with these words; `said` is its standard input."""

    def __call__(self, *words: str, said: str | bytes = "") -> Result: ...


@pytest.fixture
def world() -> Iterator[World]:
    with serving(World()) as running:
        yield running


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    # As a Windows shell or a file leaves it.
    monkeypatch.setenv("STRONGBOX_ADDR", f"http://{world.target}\r\n")
    monkeypatch.setenv("STRONGBOX_TOKEN", f"{TOKEN}\r\n")
    monkeypatch.delenv("STRONGBOX_CACERT", raising=False)
    app = build(with_dev=False)

    def invoke(*words: str, said: str | bytes = "") -> Result:
        return CliRunner().invoke(app, list(words), input=said)

    return invoke
