"""Logs: one JSON object a line on stderr, for people with `jq` and for machines.

Rules: an event is a fixed sentence; what varies is a field. Fields never hold a value, token, share or key
(accessors name tokens). An exception is logged by its type and the places in the code it came through, never
by its message or its locals: both can hold what a client sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

_FORBIDDEN = frozenset(
    ("token", "share", "password", "secret", "value", "authorization", "dek", "root_key", "plaintext")
)
# Made once: json.dumps with a `default` makes an encoder for every line.
_ENCODER = json.JSONEncoder(default=lambda _: "…", check_circular=False)


def configure(level: str, **always: str) -> None:
    """Log from `level` on, `always` in every line (service, node)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            where_it_failed,
            redact,
            to_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**always)
    # Libraries that use logging (grpc, asyncio) get the same shape, from warning on. Their messages may quote
    # what a client sent, so only the library's name and the place are logged.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger("library").warning(
            "a library complained", library=record.name, place=f"{record.module}:{record.lineno}", kind=kind
        )


def where_it_failed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn `exc_info` into the exception's type and the code it came through."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[0] is not None:
        event["exception"] = info[0].__name__
        frames = traceback.extract_tb(info[2])[-12:]
        event["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """The event as one line of JSON; what JSON cannot hold is shown as `…`."""
    return _ENCODER.encode(event)


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """In case a rule above is broken: fields named like a secret, and raw bytes, are not printed."""
    for name, value in event.items():
        if isinstance(value, bytes | bytearray | memoryview) or name.lower() in _FORBIDDEN:
            event[name] = "[redacted]"
    return event
