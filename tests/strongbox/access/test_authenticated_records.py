"""Authenticated records: what verifies, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongbox.access.authenticated_records import Forged, RecordKeys, find_record, open_record, seal_record
from strongbox.errors import DependencyDown
from strongbox.storage.v1 import auth_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.support.fakes import FakeStore

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = RecordKeys({1: OLD, 2: NEW}, 2)


def test_a_record_opens_at_the_key_it_was_sealed_for() -> None:
    assert open_record(KEYS, b"/k", seal_record(KEYS, b"/k", b"body")) == b"body"


def test_records_of_both_terms_are_accepted_and_new_ones_are_made_under_the_newest() -> None:
    before = seal_record(RecordKeys({1: OLD}, 1), b"/k", b"body")
    assert open_record(KEYS, b"/k", before) == b"body"
    assert storage.AuthenticatedRecord.FromString(seal_record(KEYS, b"/k", b"body")).term == 2


def test_a_copied_record_is_forged() -> None:
    with pytest.raises(Forged):
        open_record(KEYS, b"/other", seal_record(KEYS, b"/k", b"body"))


def test_a_record_with_another_term_body_or_mac_is_forged() -> None:
    for change in ({"term": 1}, {"body": b"bodx"}, {"mac": b""}, {"mac": b"x" * 32}, {"term": -1}):
        record = storage.AuthenticatedRecord.FromString(seal_record(KEYS, b"/k", b"body"))
        for name, value in change.items():
            setattr(record, name, value)
        with pytest.raises(Forged):
            open_record(KEYS, b"/k", record.SerializeToString())


def test_a_term_whose_key_has_not_arrived_is_no_forgery() -> None:
    with pytest.raises(DependencyDown):
        open_record(RecordKeys({1: OLD}, 1), b"/k", seal_record(KEYS, b"/k", b"body"))


def found(keys: RecordKeys) -> Callable[[View], bytes | None]:
    def parse(key: bytes, value: bytes) -> bytes | None:
        return open_record(keys, key, value)

    return lambda view: find_record(view, b"/k", parse)


def test_a_term_above_the_one_in_use_is_a_forgery_and_not_remembered_as_one() -> None:
    store, old = FakeStore(), RecordKeys({1: OLD}, 1)
    store.seed(b"/k", seal_record(KEYS, b"/k", b"body"))
    store.seed(keyspace.SEAL_STATE, b"unsealed:1")  # as memory may hold it a moment longer
    done = store.run(found(old))
    assert done.value is None
    assert keyspace.SEAL_STATE in done.view.footprint.reads  # so that the transaction compares it
    store.seed(keyspace.SEAL_STATE, b"unsealed:7:2")
    with pytest.raises(DependencyDown):
        store.run(found(old))
    assert store.run(found(KEYS)).value == b"body"


def test_the_boundary_between_key_and_body_is_under_the_mac() -> None:
    record = storage.AuthenticatedRecord.FromString(seal_record(KEYS, b"/k", b"body"))
    moved = storage.AuthenticatedRecord(term=2, body=record.body[1:], mac=record.mac)
    with pytest.raises(Forged):
        open_record(KEYS, b"/kb", moved.SerializeToString())


@given(st.binary(max_size=200))
def test_junk_never_opens(junk: bytes) -> None:
    with pytest.raises((Forged, DependencyDown)):
        open_record(KEYS, b"/k", junk)


def test_keys_show_in_no_representation_and_have_32_bytes() -> None:
    assert "ooo" not in repr(KEYS)
    with pytest.raises(ValueError, match="32 bytes"):
        RecordKeys({1: b"short"}, 1)
    with pytest.raises(ValueError, match="newest"):
        RecordKeys({1: OLD}, 2)
