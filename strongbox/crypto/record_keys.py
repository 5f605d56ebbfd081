"""The keys that authenticate records: held by every service while the cluster is unsealed, in memory only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RECORD_KEY_BYTES = 32


@dataclass(frozen=True)
class RecordKeys:
    """The record keys (32 bytes each) by key term; `newest` is the term new records are made under.

    A newer term may be among them already: it comes into use a moment after everybody has heard of it.
    """

    by_term: Mapping[int, bytes] = field(repr=False)
    newest: int

    def __post_init__(self) -> None:
        if self.newest not in self.by_term:
            raise ValueError("the newest term has no record key")
        if any(len(key) != RECORD_KEY_BYTES for key in self.by_term.values()):
            raise ValueError(f"a record key has {RECORD_KEY_BYTES} bytes")
