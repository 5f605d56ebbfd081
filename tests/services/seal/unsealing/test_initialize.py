"""Init: what is made, that it opens by its shares alone, and what is nowhere in it."""

from __future__ import annotations

import base64
import time
from typing import Any, cast

import pytest

from services.seal.keys import keyring, root_key
from services.seal.servicer import SealServicer
from services.seal.unsealing import initialize
from strongbox.access.authenticated_records import open_record
from strongbox.access.token_format import digest
from strongbox.clock import SystemClock
from strongbox.crypto import IntegrityError, WipedError
from strongbox.crypto.envelope import Dek, open_value
from strongbox.errors import AlreadyInitialized, InvalidInput
from strongbox.rpc.request_context import Inbound, bind
from strongbox.seal.v1 import seal_service_pb2 as pb
from strongbox.storage.v1 import envelope_pb2
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.envelope_records import from_record
from tests.services.seal.worlds import World, draft
from tests.support.pipeline import FakePipeline


def opened(world: World) -> keyring.Keyring:
    root = root_key.open_root(world.config, world.origin.shares[: world.threshold])
    stored = storage.Keyring.FromString(world.origin.puts[keyspace.SEAL_KEYRING])
    records = storage.RecordKeyring.FromString(world.origin.puts[keyspace.SEAL_RECORD_KEY])
    return keyring.open_keyring(root, world.config.cluster_id, stored, records)


@pytest.mark.parametrize(
    ("shares", "threshold"), [(0, 0), (-1, 1), (256, 2), (3, 0), (3, -2), (2, 3), (3, 1), (1, 2)]
)
def test_numbers_that_make_no_sense_are_refused(shares: int, threshold: int) -> None:
    with pytest.raises(InvalidInput):
        initialize.conceive(shares, threshold, 1)


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (3, 2), (5, 5), (255, 2)])
def test_the_shares_open_what_was_made(shares: int, threshold: int) -> None:
    world = World(shares, threshold)
    assert len(world.origin.shares) == len(world.config.share_digests) == shares
    keys = opened(world)
    dek = Dek.fresh()
    assert keys.unwrap("kv", keys.wrap("kv", [dek])) == [dek.key]


def test_a_second_init_is_refused_and_changes_nothing() -> None:
    world = World()
    before = dict(world.store.facts)
    other = initialize.conceive(3, 2, 1)
    with pytest.raises(AlreadyInitialized):
        world.store.run(lambda view: initialize.found(view, other), draft())
    assert world.store.facts == before


def test_it_leaves_the_cluster_sealed_named_and_with_a_time() -> None:
    world = World()
    puts = world.origin.puts
    assert puts[keyspace.SEAL_STATE] == b"sealed:1"
    assert puts[keyspace.CLUSTER_ID].decode() == world.config.cluster_id
    assert puts[keyspace.CLUSTER_TIME] == b"%020d" % world.store.now_ms


def test_the_root_token_is_found_by_its_digest_and_verifies() -> None:
    world = World()
    key = keyspace.token(digest(world.origin.root_token))
    assert open_record(opened(world).record_keys, key, world.origin.puts[key])


def test_an_audit_certificate_gets_the_chains_key_and_nobody_else() -> None:
    world = World()
    keys = opened(world)
    envelope = from_record(envelope_pb2.Envelope.FromString(world.origin.puts[keyspace.AUDIT_KEY]))
    (dek,) = keys.unwrap("audit", [envelope.wrapped])
    assert len(open_value(dek, envelope, "audit", "audit/key", 1)) == 32
    assert [keys.unwrap(purpose, [envelope.wrapped]) for purpose in ("kv", "auth", "lease")] == [[b""]] * 3


def test_no_share_token_or_key_is_in_what_is_stored() -> None:
    world = World()
    stored = b"\n".join(key + b"\n" + value for key, value in world.origin.puts.items())
    root = root_key.open_root(world.config, world.origin.shares[:2])
    keys = opened(world)
    secrets = [root, keys.record_keys.by_term[1], world.origin.root_token.encode()]
    secrets += [share.data for share in world.origin.shares]
    for secret in secrets:
        for form in (
            secret,
            secret.hex().encode(),
            base64.b64encode(secret)[:-2],
            base64.urlsafe_b64encode(secret)[:-2],
        ):
            assert form not in stored
    assert world.origin.root_token not in repr(world.origin)


def test_too_few_foreign_or_altered_parts_do_not_open() -> None:
    world, other = World(), World()
    with pytest.raises(IntegrityError):
        root_key.open_root(world.config, world.origin.shares[:1])
    with pytest.raises(IntegrityError):
        root_key.open_root(world.config, [world.share(1), other.share(2)])
    root = root_key.open_root(world.config, world.origin.shares[:2])
    with pytest.raises(IntegrityError):
        root_key.require_root(other.config, root)
    swapped = storage.SealConfig()
    swapped.CopyFrom(world.config)
    swapped.root_key.CopyFrom(other.config.root_key)
    with pytest.raises(IntegrityError):
        root_key.open_root(swapped, world.origin.shares[:2])


def test_a_keyring_of_another_cluster_or_term_does_not_open() -> None:
    world = World()
    root = root_key.open_root(world.config, world.origin.shares[:2])
    stored = storage.Keyring.FromString(world.origin.puts[keyspace.SEAL_KEYRING])
    records = storage.RecordKeyring.FromString(world.origin.puts[keyspace.SEAL_RECORD_KEY])
    with pytest.raises(IntegrityError):
        keyring.open_keyring(root, "another cluster", stored, records)
    stored.terms[0].term = records.keys[0].term = 2
    with pytest.raises(IntegrityError):
        keyring.open_keyring(root, world.config.cluster_id, stored, records)
    with pytest.raises(IntegrityError):
        keyring.open_keyring(root, world.config.cluster_id, storage.Keyring(), storage.RecordKeyring())


def test_an_unwrap_that_fails_leaves_the_others_alone() -> None:
    keys = opened(World())
    deks = [Dek.fresh() for _ in range(3)]
    one, two, three = keys.wrap("kv", deks)
    foreign = type(two)(two.id, 9, two.ciphertext, two.tag, two.nonce)
    forged = type(three)(three.id, three.term, three.ciphertext, bytes(16), three.nonce)
    assert keys.unwrap("kv", [one, foreign, forged, two]) == [deks[0].key, b"", b"", deks[1].key]


def test_a_wiped_keyring_has_nothing() -> None:
    keys = opened(World())
    (wrapped,) = keys.wrap("kv", [Dek.fresh()])
    keys.wipe()
    assert keys.unwrap("kv", [wrapped]) == [b""]
    with pytest.raises(WipedError):
        _ = keys.record_keys


async def test_nobody_has_shares_computed_where_there_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for 255 of them, asked for without a token, would stop the proofs of being in touch."""
    world = World()

    def conceive(*_: object) -> initialize.Origin:
        raise AssertionError("computed")

    monkeypatch.setattr(initialize, "conceive", conceive)
    servicer = SealServicer(cast("Any", FakePipeline(world.store)), SystemClock(), *[cast("Any", None)] * 8)
    bind(Inbound("", "request", "127.0.0.1", "", time.monotonic() + 4.5))
    with pytest.raises(AlreadyInitialized):
        await servicer.Initialize(pb.InitializeRequest(shares=255, threshold=255), cast("Any", None))
