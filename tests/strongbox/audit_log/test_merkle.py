"""The Merkle tree against RFC 6962's own definition, and every proof against every lie near it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from strongbox.audit_log.merkle import (
    EMPTY,
    Frontier,
    is_consistent,
    is_included,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root_of,
    stored_count,
    stored_place,
)

LINES = [b"%d\n" % number for number in range(70)]
ROW: list[bytes] = []
for _frontier in [Frontier()]:
    for _line in LINES:
        ROW += _frontier.add(leaf_hash(_line))
read = ROW.__getitem__


def mth(lines: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if len(lines) <= 1:
        return sha256(b"\0" + lines[0]).digest() if lines else sha256(b"").digest()
    k = 1
    while 2 * k < len(lines):
        k *= 2
    return sha256(b"\1" + mth(lines[:k]) + mth(lines[k:])).digest()


def test_rfc_9162s_known_roots() -> None:
    # The reference vectors of Certificate Transparency's implementations (eight leaves).
    leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    frontier = Frontier()
    roots = []
    for leaf in leaves:
        frontier.add(leaf_hash(bytes.fromhex(leaf)))
        roots.append(frontier.root().hex())
    assert roots[0] == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert roots[1] == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert roots[2] == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert roots[7] == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_roots_and_stored_hashes_are_those_of_the_definition() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY == mth([])
    for size in range(1, len(LINES) + 1):
        frontier.add(leaf_hash(LINES[size - 1]))
        assert frontier.root() == root_of(size, read) == mth(LINES[:size])
        assert Frontier.of(size, read).root() == frontier.root()
    assert len(ROW) == stored_count(len(LINES))
    for level in range(7):
        for number in range(len(LINES) >> level):
            assert ROW[stored_place(level, number)] == mth(LINES[number << level : (number + 1) << level])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 33, 70])
def test_every_entry_is_proved_and_no_other_by_the_same_proof(size: int) -> None:
    root = mth(LINES[:size])
    for index in range(size):
        path, leaf = prove_inclusion(index, size, read), leaf_hash(LINES[index])
        assert is_included(index, size, leaf, path, root)
        assert not any(
            is_included(other, size, leaf, path, root) for other in range(size + 2) if other != index
        )
        assert not is_included(index, size, leaf_hash(b"x"), path, root)
        assert not is_included(index, size, leaf, [*path, root], root)
        assert not path or not is_included(index, size, leaf, path[:-1], root)
        assert not is_included(index, size, leaf, path, EMPTY)
        assert not is_included(-1, size, leaf, path, root)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 70])
def test_every_older_log_is_proved_to_be_the_beginning_and_no_other(size: int) -> None:
    root = mth(LINES[:size])
    for old in range(size + 1):
        path = prove_consistency(old, size, read)
        assert is_consistent(old, size, mth(LINES[:old]), root, path)
        assert not is_consistent(old, size, sha256(b"another").digest(), root, path)
        assert not is_consistent(old, size, mth(LINES[:old]), sha256(b"another").digest(), path) or old == 0
        assert not is_consistent(old, size, mth(LINES[:old]), root, [*path, root])
        for place in range(len(path)):
            wrong = [*path[:place], EMPTY, *path[place + 1 :]]
            assert not is_consistent(old, size, mth(LINES[:old]), root, wrong)
            assert not is_consistent(old, size, mth(LINES[:old]), root, path[:place])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_what_is_not_there_is_not_proved(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="leaf"):
        prove_inclusion(index, size, read)
    with pytest.raises(ValueError, match="older"):
        prove_consistency(size + 1, size, read)
