"""Logs tell what happened and never what was in it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from strongbox import logs

SECRET = "hunter2hunter2"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Configure logging for one test; calling the fixture's value gives the lines written so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure("info", service="kv", node="node-1")
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level


def test_a_line_is_one_json_object_with_time_level_service_and_node(lines: Any) -> None:
    structlog.get_logger().info("started", address="127.0.0.1:1")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "started", "level": "info", "service": "kv", "node": "node-1", "address": "127.0.0.1:1",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["token", "share", "password", "secret", "value", "authorization", "dek", "root_key", "Token"]
)
def test_a_field_that_sounds_like_a_secret_is_not_printed(lines: Any, name: str) -> None:
    structlog.get_logger().info("written", **{name: SECRET})
    (line,) = lines()
    assert line[name] == "[redacted]"


@pytest.mark.parametrize("raw", [SECRET.encode(), bytearray(SECRET.encode()), memoryview(SECRET.encode())])
def test_bytes_are_not_printed_under_any_name(lines: Any, raw: Any) -> None:
    structlog.get_logger().info("written", what=raw, inside=[raw])
    text = json.dumps(lines())
    assert SECRET not in text
    assert SECRET.encode().hex() not in text


def test_an_object_is_not_printed_by_its_repr(lines: Any) -> None:
    class Leaky:
        def __repr__(self) -> str:
            return SECRET

    structlog.get_logger().info("written", what=Leaky(), inside={"it": Leaky()})
    assert SECRET not in json.dumps(lines())


def test_an_exception_is_told_by_type_and_place_never_by_message(lines: Any) -> None:
    def fails_with_a_secret(value: str) -> None:
        raise ValueError(f"cannot parse {value}")

    try:
        fails_with_a_secret(SECRET)
    except ValueError:
        structlog.get_logger().exception("a handler failed")
    (line,) = lines()
    assert line["exception"] == "ValueError"
    assert line["stack"][-1].endswith("fails_with_a_secret")
    assert SECRET not in json.dumps(line)


def test_an_exception_given_as_an_object_is_told_the_same_way(lines: Any) -> None:
    structlog.get_logger().error("failed", exc_info=RuntimeError(SECRET))
    (line,) = lines()
    assert line["exception"] == "RuntimeError"
    assert SECRET not in json.dumps(line)


def test_causes_and_contexts_are_not_told_either(lines: Any) -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise RuntimeError(SECRET) from cause
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert SECRET not in json.dumps(lines())


def test_a_library_is_quoted_by_name_and_place_only(lines: Any) -> None:
    try:
        raise OSError(SECRET)
    except OSError:
        logging.getLogger("grpc._cython").exception("message %s", SECRET)
    (line,) = lines()
    assert (line["library"], line["kind"]) == ("grpc._cython", "OSError")
    assert SECRET not in json.dumps(line)


def test_lines_below_the_level_are_not_written(lines: Any) -> None:
    structlog.get_logger().debug("noise")
    logging.getLogger("library").info("noise")
    assert lines() == []


def test_logs_go_to_stderr_and_leave_stdout_alone() -> None:
    code = "from strongbox import logs; import structlog; logs.configure('info'); "
    code += "structlog.get_logger().info('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    assert done.stdout == b""
    assert json.loads(done.stderr)["event"] == "x"
