"""Proofs from the row of hashes, each verified against what was signed before it is told.

A row that was damaged under our feet gives no wrong proof but none: `Unproved`.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.audit.log.segments import Segments
from strongbox.audit_log.checkpoint import Checkpoint
from strongbox.audit_log.merkle import (
    is_consistent,
    is_included,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
)


class Unproved(Exception):
    """The hashes on disk do not prove what stands in the log."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That a line with this leaf is entry `index`."""

    index: int
    leaf: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """That a tree of `size` leaves and this root is the beginning of another."""

    size: int
    root: bytes
    path: tuple[bytes, ...]


def prove_entry(log: Segments, index: int, size: int) -> Inclusion:
    """That entry `index` is among the first `size`. Blocking. Raises Unproved, OSError, Broken."""
    line = next(log.read(index), b"")
    read = log.hashes.read
    found = Inclusion(index, leaf_hash(line), tuple(prove_inclusion(index, size, read)))
    if not is_included(index, size, found.leaf, found.path, log.hashes.root(size)):
        raise Unproved(f"entry {index} among {size}")
    return found


def prove_growth(log: Segments, size: int, larger: int) -> Growth:
    """That the first `size` entries are the beginning of the first `larger`. Blocking. Raises as above."""
    path = tuple(prove_consistency(size, larger, log.hashes.read))
    found = Growth(size, log.hashes.root(size), path)
    if not is_consistent(size, larger, found.root, log.hashes.root(larger), path):
        raise Unproved(f"{size} entries among {larger}")
    return found


def prove_signed(log: Segments, size: int, checkpoint: Checkpoint) -> Growth:
    """That the first `size` entries are the beginning of `checkpoint`. Blocking. Raises as above"""
    found = prove_growth(log, size, checkpoint.size)
    if not is_consistent(size, checkpoint.size, found.root, checkpoint.root, found.path):
        raise Unproved(f"{size} entries in the signed {checkpoint.size}")
    return found
