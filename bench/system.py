"""What the benchmark asks of a system, and the work it gives to each: the same to all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.load import Address, encode

READ_PATHS = [f"bench/read/{number}" for number in range(100)]
WRITE_PATHS = [f"bench/write/{number}" for number in range(1000)]
_VALUE = (
    "correct horse battery staple, as long as passwords for machines tend to be: 0123456789abcdef" + "x" * 10
)


def body() -> bytes:
    """What is written: one field of a hundred bytes, in the form that both systems take."""
    return json.dumps({"data": {"password": _VALUE}}).encode()


@dataclass(frozen=True, slots=True)
class Work:
    """Encoded requests of one kind; each connection walks through all of them."""

    reads: list[bytes]
    writes: list[bytes]

    @classmethod
    def under(cls, mount: str, headers: dict[str, str]) -> Work:
        """The work below a URL path such as `/v1/secrets`."""
        return cls(
            [encode("GET", f"{mount}/{path}", headers) for path in READ_PATHS],
            [encode("PUT", f"{mount}/{path}", headers, body()) for path in WRITE_PATHS],
        )


class System(Protocol):
    """A running system under test."""

    name: str
    version: str
    work: Work

    @property
    def addresses(self) -> Sequence[Address]:
        """Every address for clients; they use the first alone, or are spread over all."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """Every process of the system."""
        ...

    def stop(self) -> None:
        """End every process and delete the data."""
        ...
