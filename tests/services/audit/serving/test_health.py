"""Trouble is told: health, presence, metrics; and copies to standard output block nobody."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from services.audit.duties.outbox_backlog import Backlog
from services.audit.serving.health import Reporting
from services.audit.serving.stdout_copy import MOST, StandardOutput


class FakeHealth:
    """What a gateway would be told."""

    def __init__(self) -> None:
        self.serving, self.told = True, list[bool]()

    async def set_serving(self, serving: bool) -> None:
        self.serving = serving
        self.told.append(serving)


def parts(**replica: Any) -> tuple[Any, Any, Any]:
    written: list[int] = []
    runtime = SimpleNamespace(
        health=FakeHealth(), trouble="", metrics=SimpleNamespace(registry=CollectorRegistry()),
        session=SimpleNamespace(write_now=lambda: written.append(1)), written=written,
    )  # fmt: skip
    found = SimpleNamespace(trouble="", gaps=2, position=SimpleNamespace(size=7), **replica)
    found.log = SimpleNamespace(first=0, kept_bytes=10)
    return runtime, found, SimpleNamespace(alarm="", backlog=Backlog(5, 700))


async def test_trouble_and_its_end_are_told_once_each() -> None:
    runtime, replica, duty = parts()
    reporting = Reporting(runtime, replica, duty, None)
    read = runtime.metrics.registry.get_sample_value
    await reporting.look()
    assert (runtime.health.told, runtime.written, read("strongbox_audit_trouble")) == ([], [], 0)
    replica.trouble = "audit-000000.jsonl was replaced"
    for _ in range(3):
        await reporting.look()
    assert (runtime.health.told, runtime.trouble) == ([False], replica.trouble)
    assert (len(runtime.written), read("strongbox_audit_trouble")) == (1, 1)
    replica.trouble, duty.alarm = "", "audit replicas differ"
    await reporting.look()
    assert runtime.trouble == "audit replicas differ"
    duty.alarm = ""
    await reporting.look()
    assert (runtime.health.told[-1], runtime.trouble) == (True, "")
    assert (read("strongbox_audit_entries"), read("strongbox_audit_gaps")) == (7, 2)
    assert (read("strongbox_audit_backlog"), read("strongbox_audit_backlog_bytes")) == (5, 700)


async def test_serving_that_is_set_by_others_does_not_hide_trouble() -> None:
    runtime, replica, duty = parts()
    reporting = Reporting(runtime, replica, duty, None)
    replica.trouble = "full"
    await reporting.look()
    runtime.health.serving = True  # the process says so when it gets its first session
    await reporting.look()
    assert runtime.health.serving is False


def test_lines_are_copied_in_order() -> None:
    reader, writer = os.pipe()
    copies = StandardOutput(writer)
    copies.give([b"one\n", b"two\n"])
    got = b""
    while got != b"one\ntwo\n":
        got += os.read(reader, 100)
    os.close(reader)
    assert copies.dropped == 0


def test_a_reader_that_does_not_read_blocks_nobody() -> None:
    reader, writer = os.pipe()
    copies = StandardOutput(writer)
    line = b"x" * 400 + b"\n"
    started = time.monotonic()
    copies.give([line] * (3 * MOST))
    assert time.monotonic() - started < 5
    assert MOST <= copies.dropped <= 2 * MOST
    got = 0
    while got < (3 * MOST - copies.dropped) * len(line):
        got += len(os.read(reader, 1 << 16))
    os.close(reader)


def test_an_output_that_is_closed_is_given_up_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    copies = StandardOutput(writer)
    copies.give([b"x\n"] * 10)
    copies.give([b"x\n"] * 3 * MOST)
    assert copies.dropped > 0
