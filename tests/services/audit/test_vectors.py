"""The vectors that other languages can use: key terms, the tree, proofs and a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from strongbox.audit_log.chain import Verifier
from strongbox.audit_log.checkpoint import sign, verifier_key, verify
from strongbox.audit_log.merkle import EMPTY, Frontier, is_consistent, is_included, leaf_hash
from strongbox.crypto.ed25519 import SigningKey, from_pem

VECTORS = json.loads((Path(__file__).parent / "proof_vectors.json").read_text("utf-8"))
LINES = [line.encode() for line in VECTORS["lines"]]
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaf_hashes"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]


def test_the_chain_over_two_key_terms() -> None:
    verifier = Verifier({int(term): bytes.fromhex(key) for term, key in VECTORS["keys"].items()})
    terms = []
    for line in LINES:
        terms.append(verifier.term)
        verifier.check(line)
    assert terms == [1, 1, 1, 2, 2]


def test_the_tree_and_its_stored_hashes() -> None:
    frontier, row = Frontier(), []
    assert ROOTS[0] == EMPTY
    for size, (line, leaf) in enumerate(zip(LINES, LEAVES, strict=True), 1):
        assert leaf_hash(line) == leaf
        row += frontier.add(leaf)
        assert frontier.root() == ROOTS[size]
    assert [each.hex() for each in row] == VECTORS["stored_hashes"]


def test_proofs() -> None:
    for one in VECTORS["inclusion"]:
        path = [bytes.fromhex(each) for each in one["path"]]
        assert is_included(one["index"], one["size"], LEAVES[one["index"]], path, ROOTS[one["size"]])
    for one in VECTORS["consistency"]:
        path = [bytes.fromhex(each) for each in one["path"]]
        old, size = one["from_size"], one["size"]
        assert is_consistent(old, size, ROOTS[old], ROOTS[size], path)


def test_the_checkpoint() -> None:
    public = from_pem(VECTORS["public_key"])
    told = verify(VECTORS["checkpoint"], public)
    assert (told.size, told.root) == (5, ROOTS[5])
    key = SigningKey(bytes.fromhex(VECTORS["signing_seed"]))
    assert (key.public, sign(told, key)) == (public, VECTORS["checkpoint"])
    assert VECTORS["verifier_key"] == verifier_key(told.origin, public)
