"""What a process says of itself in its session key: every 2 s, and when `unsealed` or `trouble` changes.

Whoever may write to `nodes/` may leave junk there: it is read as if nothing were told (`told_in`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Presence:
    """What is told, in etcd as JSON.

    `address`: host:port to call it at; `clock_ms`: its own clock; `incarnation`: the audit producer's;
    `trouble`: what is wrong with it, "" if nothing is; `duties`: by name, when this process last got on with
    each, in milliseconds since the epoch (0: never). `unsealed`: whether it has the record keys; false for
    the seal service, whose replicas say that elsewhere.
    """

    node: str
    service: str
    address: str
    clock_ms: int
    healthy: bool
    unsealed: bool
    incarnation: str
    trouble: str
    duties: Mapping[str, int]

    def pack(self) -> bytes:
        """As it is stored, with the process's id."""
        return json.dumps({**asdict(self), "pid": os.getpid()}).encode()


def told_in(presence: bytes) -> Mapping[str, Any]:
    """What a process says of itself; `{}` when it cannot be parsed."""
    try:
        told = json.loads(presence)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def address_in(presence: bytes) -> str:
    """Where to call it; "" when that is not told."""
    address = told_in(presence).get("address")
    return address if isinstance(address, str) else ""
