"""Proofs from the row of hashes, each verified before it is given.

If the row was damaged meanwhile, `Unproved` is raised: there is never a wrong proof.
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
    """Proof that a line with this leaf (32 bytes) is entry `index`."""

    index: int
    leaf: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """Proof that a tree of `size` leaves and this root is the beginning of another."""

    size: int
    root: bytes
    path: tuple[bytes, ...]


def prove_entry(log: Segments, index: int, size: int) -> Inclusion:
    """Proof that entry `index` is among the first `size`. Blocking. Raises Unproved, OSError, Broken."""
    line = next(log.read(index), b"")
    read = log.hashes.read
    found = Inclusion(index, leaf_hash(line), tuple(prove_inclusion(index, size, read)))
    if not is_included(index, size, found.leaf, found.path, log.hashes.root(size)):
        raise Unproved(f"entry {index} among {size}")
    return found


def prove_growth(log: Segments, size: int, larger: int) -> Growth:
    """Proof that the first `size` entries begin the first `larger`. Blocking. Raises as `prove_entry`."""
    path = tuple(prove_consistency(size, larger, log.hashes.read))
    found = Growth(size, log.hashes.root(size), path)
    if not is_consistent(size, larger, found.root, log.hashes.root(larger), path):
        raise Unproved(f"{size} entries among {larger}")
    return found


def prove_signed(log: Segments, size: int, checkpoint: Checkpoint) -> Growth:
    """Proof that the first `size` entries begin `checkpoint`. Blocking. Raises as `prove_entry`."""
    found = prove_growth(log, size, checkpoint.size)
    if not is_consistent(size, checkpoint.size, found.root, checkpoint.root, found.path):
        raise Unproved(f"{size} entries in the signed {checkpoint.size}")
    return found
