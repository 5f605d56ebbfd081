"""The chain's arithmetic against vectors, and every way to tamper with it."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.audit_log.chain import (
    GENESIS,
    Entry,
    Tampered,
    Verifier,
    canonical,
    link,
    parse_line,
    timestamp,
)
from tests.services.audit.logs import KEY, KEYS, chain, entry

VECTORS = json.loads((Path(__file__).parent / "chain_vectors.json").read_text("utf-8"))
TEXT = [field.name for field in fields(Entry) if field.name not in ("index", "version", "hmac", "earlier")]


def first_fault(lines: list[bytes], keys: dict[int, bytes] | None = KEYS) -> Tampered | None:
    """Where the verifier stops, if it does."""
    verifier = Verifier(keys)
    try:
        for line in lines:
            verifier.check(line)
    except Tampered as fault:
        return fault
    return None


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_entries_hash_and_read_as_the_vectors_say(vector: dict[str, object]) -> None:
    fields_ = vector["entry"]
    assert isinstance(fields_, dict)
    chained = link(bytes.fromhex(str(vector["key"])), fields_["prev_hmac"], Entry(**{**fields_, "hmac": ""}))
    assert canonical(chained).hex() == vector["canonical"]
    assert chained.hmac == fields_["hmac"]
    assert chained.line() == str(vector["line"]).encode()
    earlier = str(vector.get("earlier_line", vector["line"])).encode()
    assert parse_line(earlier) == chained and parse_line(earlier).line() == earlier


def test_the_encoding_is_the_one_documented() -> None:
    chained = chain(1)[0]
    data = b"strongbox audit entry v1\0"
    for field in fields(Entry)[:-2]:  # hmac, and how the line is written
        text = str(getattr(chained, field.name)).encode()
        data += struct.pack(">I", len(text)) + text
    assert chained.hmac == hmac.new(KEY, data, hashlib.sha256).hexdigest()


def test_the_first_entry_follows_64_zeros() -> None:
    assert chain(1)[0].prev_hmac == GENESIS == "0" * 64


def test_an_intact_chain_verifies() -> None:
    assert first_fault([one.line() for one in chain(50)]) is None


@pytest.mark.parametrize("name", [*TEXT, "hmac"])
def test_a_changed_text_field_is_found_at_its_index(name: str) -> None:
    entries = chain(9)
    old = getattr(entries[4], name)
    entries[4] = replace(entries[4], **{name: ("0" if old[:1] != "0" else "1") + old[1:]})
    fault = first_fault([one.line() for one in entries])
    assert fault is not None and fault.index == 4


@pytest.mark.parametrize("name", ["index", "version"])
def test_a_changed_number_is_found_at_its_index(name: str) -> None:
    entries = chain(9)
    changes: dict[str, Any] = {name: 77}
    entries[4] = replace(entries[4], **changes)
    fault = first_fault([one.line() for one in entries])
    assert fault is not None and fault.index == 4


@pytest.mark.parametrize(
    ("order", "first_bad"),
    [
        ([0, 1, 3, 4, 5], 2),
        ([1, 2, 3], 0),
        ([0, 1, 1, 2, 3], 2),
        ([0, 2, 1, 3], 1),
        ([0, 1, 2, 3, 2], 4),
    ],
    ids=["delete", "delete the first", "duplicate", "reorder", "insert a copy"],
)
def test_moved_entries_are_found_with_or_without_the_key(order: list[int], first_bad: int) -> None:
    lines = [one.line() for one in chain(6)]
    for keys in (KEYS, None):
        fault = first_fault([lines[i] for i in order], keys)
        assert fault is not None and fault.index == first_bad


def test_an_inserted_forgery_with_another_key_is_found() -> None:
    entries = chain(5)
    forged = link(b"x" * 32, entries[1].hmac, entry(2))
    fault = first_fault([one.line() for one in [*entries[:2], forged, *entries[2:]]])
    assert fault is not None and fault.index == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b'":', b'": ', 1),
        lambda line: line[:-1],
        lambda line: line[:-1] + b" \n",
        lambda line: line.replace(b"secret/app", b"secret\\/app"),
        lambda line: line.replace(b'"version":3', b'"version":3.0'),
        lambda line: line.replace(b'"version":3', b'"version":"3"'),
        lambda line: line.replace(b'"version":3', b'"version":true'),
        lambda line: line.replace(b'{"index":3,', b'{"index":3,"index":3,'),
        lambda line: line.replace(b'"reason":"",', b""),
        lambda line: line.replace(b"alice", b"\\ud800"),
        lambda _: b"\n",
        lambda _: b"[" * 100_000 + b"\n",
        lambda _: b"\xff\xfe\n",
    ],
)
def test_a_line_written_in_any_other_way_is_a_fault(spoil: object) -> None:
    assert callable(spoil)
    lines = [one.line() for one in chain(5)]
    lines[3] = spoil(lines[3])
    fault = first_fault(lines)
    assert fault is not None and fault.index == 3


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, 2**31 - 1))
def test_every_entry_has_one_text_which_parses_to_itself(text: str, number: int) -> None:
    chained = link(KEY, GENESIS, entry(0, path=text, client=text[::-1], version=number))
    line = chained.line()
    assert line.count(b"\n") == 1
    assert parse_line(line) == chained


@given(st.text(max_size=8), st.text(max_size=8))
def test_fields_cannot_be_shifted_into_each_other(left: str, right: str) -> None:
    try:
        one, other = entry(0, op=left, path=right), entry(0, op=left + right[:1], path=right[1:])
        same = canonical(one) == canonical(other)
    except UnicodeEncodeError:
        return
    assert same == (right == "")


def test_timestamps_are_utc_with_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_769_860_800_007) == "2026-01-31T12:00:00.007Z"
