"""Two things that tests of a running cluster say often: this is refused; this comes true soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.support.clients import Refused


def refused(expected: str, call: Callable[..., Any], *args: Any, **named: Any) -> Refused:
    """The refusal that `call(*args, **named)` meets, which must be `expected`: `CODE` or `CODE/REASON`.

    Raises AssertionError when it succeeds or meets another one.
    """
    refusal = outcome(call, *args, **named)
    if refusal is None:
        raise AssertionError(f"{expected} was expected, but it was allowed")
    code, _, reason = expected.partition("/")
    assert refusal.code == code, f"{expected} was expected: {refusal}"
    assert reason in ("", refusal.reason), f"{expected} was expected: {refusal}"
    return refusal


def outcome(call: Callable[..., Any], *args: Any, **named: Any) -> Refused | None:
    """The refusal, or None when the call succeeds."""
    try:
        call(*args, **named)
    except Refused as refusal:
        return refusal
    return None


def eventually(seconds: float, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What `call` returns once it raises neither Refused nor AssertionError. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call(*args, **named)
        except (Refused, AssertionError) as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"still so after {seconds:.0f} s: {error}") from error
        time.sleep(0.05)
