"""The keys of a whole cluster: rotated under load, attacked in etcd, searched for in memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.seal.keys import root_key
from strongbox.access import token_format
from strongbox.access.authenticated_records import Forged, RecordKeys, open_record, seal_record
from strongbox.crypto.shamir import Share, combine, split
from strongbox.storage.v1 import auth_records_pb2, envelope_pb2
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd as Client
from strongbox.store.etcd.client import Tls
from tests.robustness.load import Load
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.cluster_keys import keys_of
from tests.support.expect import eventually, outcome, refused
from tests.support.memory import copies
from tests.support.store import Etcd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
SECRETS = 60


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """Three nodes for this module alone."""
    with Cluster.start(3) as running:
        yield running


def put(cluster: Cluster, changes: Mapping[bytes, bytes | None]) -> None:
    """As somebody with full write access to etcd; None deletes."""
    told = cluster.description
    certs = Path(told["certs"])
    tls = Tls.read(certs / "ca.pem", certs / "operator.pem", certs / "operator.key")

    async def write() -> None:
        etcd = Client([str(one).removeprefix("https://") for one in told["etcd"]], tls)
        try:
            operations = [
                txn.delete(key) if value is None else txn.put(key, value) for key, value in changes.items()
            ]
            await etcd.transact(txn.txn([], operations), idempotent=True)
        finally:
            await etcd.close()

    asyncio.run(write())


def rows(cluster: Cluster, prefix: bytes = keyspace.ROOT) -> dict[bytes, bytes]:
    with Etcd(cluster) as etcd:
        return etcd.rows(prefix)


def authenticated(found: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """All records that grant power, of every owner."""
    prefixes = tuple(prefix for some in keyspace.AUTHENTICATED.values() for prefix in some)
    return {key: value for key, value in found.items() if key.startswith(prefixes)}


def terms_in(found: Mapping[bytes, bytes]) -> set[int]:
    """The key terms that anything stored is under."""
    bare = tuple(prefix for some in keyspace.ENVELOPES.values() for prefix in some)
    terms = {envelope_pb2.Envelope.FromString(v).term for k, v in found.items() if k.startswith(bare)}
    records = authenticated(found).values()
    return terms | {auth_records_pb2.AuthenticatedRecord.FromString(value).term for value in records}


def test_a_rotation_brings_everything_along_while_requests_go_on_and_holders_die(own: Cluster) -> None:
    with own.rest(own.root_token, 2, Patience()) as root:
        for number in range(SECRETS):
            for version in (1, 2):
                root.write(f"rotated/{number}", f"{number} {version}")
            root.read(f"rotated/{number}")
        rules = [{"path": "secret/*", "capabilities": ["read", "write"]}]
        root.call("PUT", "/v1/policies/rotated", {"rules": rules})
        token = str(root.call("POST", "/v1/tokens", {"policies": ["rotated"]})["token"])
        with Load(own, token, clients=3, nodes=[0, 1]) as load:
            load.wait_for(15)
            told = root.call("POST", "/v1/sys/rotate")
            assert told["term"] == 2
            leaders = root.call("GET", "/v1/sys/health")["leaders"]
            own.process(leaders["rewrap-kv"], "kv").kill()
            own.process(leaders["terms"], "seal").kill()
            load.wait_for(15)
            eventually(60, _require_rewrapped, root)
            load.wait_for(15)
        assert load.failures == []
        for node in {leaders["rewrap-kv"], leaders["terms"]}:
            own.up(node=node, unseal=False)
        eventually(10, _require_terms_stored, own, {2})
        for number in range(SECRETS):
            for version in (1, 2):
                assert root.read(f"rotated/{number}", version=version)["value"] == f"{number} {version}"
        load.require_exactly_once(root)
        with own.rest(token, 1, Patience()) as small:
            assert small.read("rotated/0")["value"] == "0 2"
        # The chain goes on under the same key, which is wrapped anew.
        assert root.call("GET", "/v1/audit", op="RotateKeys")["entries"]


def _require_rewrapped(root: Any) -> None:
    status = root.call("GET", "/v1/sys/key-status")
    assert 2 * SECRETS <= status["rewrap"]["done"] == status["rewrap"]["total"], status


def _require_terms_stored(own: Cluster, terms: set[int]) -> None:
    assert terms_in(rows(own)) == terms


def _require_terms(root: Any, terms: list[int]) -> None:
    status = root.call("GET", "/v1/sys/key-status")
    assert status["terms"] == terms, status


def test_copied_edited_and_forged_records_of_every_kind_grant_nothing(own: Cluster) -> None:
    shares = [Share.decode(share) for share in own.shares[:2]]
    with own.rest(own.root_token, 0, Patience()) as root:
        root.write("mine/a", "of the victim")
        root.write("thief/a", "of the thief")
        root.write("thief/a", "of the thief again")
        root.read("mine/a")
        rules = [{"path": "secret/thief/*", "capabilities": ["read", "write"]}]
        root.call("PUT", "/v1/policies/thief", {"rules": rules})
        all_rules = [{"path": "secret/*", "capabilities": ["read", "write"]}]
        root.call("PUT", "/v1/policies/mighty", {"rules": all_rules})
        made = root.call("POST", "/v1/tokens", {"policies": ["thief"]})
    thief = str(made["token"])
    before = rows(own)
    _require_each_record_is_bound(own, before, shares)

    # Through the door. A token of his own making, under the root token's record, and under one he made.
    invented = token_format.new_token()
    own_key = keyspace.token(token_format.digest(invented))
    body = token_format.root_record(int(time.time() * 1000)).SerializeToString()
    guesses = {
        "copied": before[keyspace.token(token_format.digest(own.root_token))],
        "under a key of his own": seal_record(RecordKeys({2: os.urandom(32)}, 2), own_key, body),
        "under a term to come": seal_record(RecordKeys({9: bytes(32)}, 9), own_key, body),
        "bare": body,
        "no record": b"\xff\xff",
        "empty": b"",
    }
    for what, value in guesses.items():
        put(own, {own_key: value})
        for node in range(3):
            with own.rest(invented, node) as rest:
                refusal = outcome(rest.read, "mine/a")
                assert refusal is not None, f"{what}: let in"
                assert refusal.code in ("UNAUTHENTICATED", "UNAVAILABLE"), f"{what}: {refusal}"
    put(own, {own_key: None})
    # His own token's record edited; his policy's record replaced by the mighty one's.
    thief_key = keyspace.token(token_format.digest(thief))
    record = auth_records_pb2.AuthenticatedRecord.FromString(before[thief_key])
    better = auth_records_pb2.TokenRecord.FromString(record.body)
    better.policies[:] = ["root"]
    edited = auth_records_pb2.AuthenticatedRecord(
        term=record.term, body=better.SerializeToString(), mac=record.mac
    )
    mine, mighty = keyspace.policy("thief"), keyspace.policy("mighty")
    for change in ({thief_key: edited.SerializeToString()}, {mine: before[mighty]}):
        put(own, change)
        with own.rest(thief, 1) as rest:
            refusal = outcome(rest.read, "mine/a") or _let_in()
            assert refusal.code in ("UNAUTHENTICATED", "PERMISSION_DENIED")
        put(own, {key: before[key] for key in change})
    # The victim's envelope and head at a path that he may read; another version's envelope as the newest.
    place, victims = keyspace.envelope("thief/a", 2), _newest(before, "mine/a")
    for stolen in (before[victims], before[keyspace.envelope("thief/a", 1)]):
        put(own, {place: stolen})
        with own.rest(thief, 2) as rest:
            refusal = outcome(rest.read, "thief/a")
            if refusal is None:  # the replica that answered remembers the envelope that was there
                assert rest.read("thief/a")["value"] == "of the thief again"
            else:
                assert refusal.code == "INTERNAL"
    put(own, {keyspace.head("thief/a"): before[keyspace.head("mine/a")], place: before[victims]})
    with own.rest(thief, 2) as rest:
        refused("INTERNAL", rest.read, "thief/a")
    put(own, {key: before[key] for key in (place, keyspace.head("thief/a"))})
    with own.rest(thief) as rest:
        assert rest.read("thief/a")["value"] == "of the thief again"
        refused("PERMISSION_DENIED", rest.read, "mine/a")
    _require_seal_records_are_bound(own, before)


def _let_in() -> Any:
    raise AssertionError("an edited record let him in")


def _require_each_record_is_bound(own: Cluster, before: Mapping[bytes, bytes], shares: list[Share]) -> None:
    """With the real record keys: each verifies where it stands, and nowhere else, and in no other form."""
    found = keys_of(own, shares)
    by_term = {int(name.split()[-1]): key for name, key in found.items() if name.startswith("record key")}
    keys = RecordKeys(by_term, max(by_term))
    records = authenticated(before)
    # One of each kind at least that exists without PostgreSQL and users.
    for prefix in (keyspace.TOKENS, keyspace.POLICIES, keyspace.READ_LEASES):
        assert any(key.startswith(prefix) for key in records)
    for key, value in records.items():
        body = open_record(keys, key, value)
        stored = auth_records_pb2.AuthenticatedRecord.FromString(value)
        forms = [
            (key + b"x", value),
            (key, _record(stored, body=body + b"\0")),
            (key, _record(stored, term=stored.term - 1)),
            (key, _record(stored, mac=bytes(32))),
            (key, _record(stored, mac=b"")),
        ]
        for other, form in forms:
            with pytest.raises(Forged):
                open_record(keys, other, form)


def _record(stored: auth_records_pb2.AuthenticatedRecord, **changed: Any) -> bytes:
    fields = {"term": stored.term, "body": stored.body, "mac": stored.mac} | changed
    return auth_records_pb2.AuthenticatedRecord(**fields).SerializeToString()


def _require_seal_records_are_bound(own: Cluster, before: Mapping[bytes, bytes]) -> None:
    """Shares of his own in seal/config are shares of another key: they make no root token, no shares."""
    config = storage.SealConfig.FromString(before[keyspace.SEAL_CONFIG])
    forged = storage.SealConfig()
    forged.CopyFrom(config)
    key = os.urandom(32)
    his = split(key, 3, 2)
    digests = [root_key.share_digest(config.cluster_id, share) for share in his]
    forged.share_digests[:] = digests
    # A root key record that his shares do open, to a root key of his: the check value tells.
    other = storage.SealConfig()
    other.CopyFrom(forged)
    other.root_key.CopyFrom(root_key.seal_root(key, os.urandom(32), config.cluster_id))
    for fake in (forged, other):
        put(own, {keyspace.SEAL_CONFIG: fake.SerializeToString()})
        with own.rest() as rest:
            begun = rest.call("POST", "/v1/sys/generate-root/init", {"share": his[0].encode()})
            body = {"nonce": begun["nonce"], "share": his[1].encode()}
            refused("INTERNAL", rest.call, "POST", "/v1/sys/generate-root/update", body)
            rest.call("POST", "/v1/sys/generate-root/cancel", {"nonce": begun["nonce"]})
    put(own, {keyspace.SEAL_CONFIG: before[keyspace.SEAL_CONFIG]})
    # A pending configuration of his own in the place of the one that a rekey made.
    with own.rest() as rest:
        begun = rest.call("POST", "/v1/sys/rekey/init", {"share": own.shares[0]})
        made = rest.call("POST", "/v1/sys/rekey/update", {"nonce": begun["nonce"], "share": own.shares[1]})
        where = keyspace.ceremony("rekey")
        ceremony = storage.Ceremony.FromString(rows(own, where)[where])
        ceremony.pending.share_digests[:] = digests
        put(own, {where: ceremony.SerializeToString()})
        for share in (his[0].encode(), made["shares"][0]):
            body = {"nonce": begun["nonce"], "share": share}
            refused("INVALID_ARGUMENT", rest.call, "POST", "/v1/sys/rekey/verify", body)
        rest.call("POST", "/v1/sys/rekey/cancel", {"nonce": begun["nonce"]})
    # A keyring of an earlier time, or of nonsense, is not taken in by who holds a better one.
    for junk in (b"", b"\xff", storage.Keyring(terms=[storage.KeyTerm(term=7)]).SerializeToString()):
        put(own, {keyspace.SEAL_KEYRING: junk})
        time.sleep(0.3)
        with own.rest(own.root_token, 1, Patience()) as root:
            assert root.read("mine/a")["value"] == "of the victim"
    put(own, {keyspace.SEAL_KEYRING: before[keyspace.SEAL_KEYRING]})
    time.sleep(3)
    for node in range(3):
        with own.rest(node=node) as rest:
            assert rest.call("GET", "/v1/sys/health")["sealed"] is False, "junk in etcd ended a process"


def _newest(found: Mapping[bytes, bytes], path: str) -> bytes:
    """The etcd key of a secret's newest envelope."""
    return max(key for key in found if key.startswith(keyspace.KV_ENVELOPES + path.encode() + b"\0"))


def test_what_who_writes_to_etcd_can_do_is_what_the_threat_model_says(own: Cluster) -> None:
    """An older head can be put back: a soft delete can be undone, and still only a reader reads."""
    with own.rest(own.root_token, 0, Patience()) as root:
        root.write("undone/a", "deleted once")
        before = rows(own, keyspace.head("undone/a"))
        root.call("DELETE", "/v1/secrets/undone/a")
        refused("NOT_FOUND/DELETED", root.read, "undone/a")
        # Who edits a head instead is refused: it is authenticated.
        place = keyspace.head("undone/a")
        now = auth_records_pb2.AuthenticatedRecord.FromString(rows(own, place)[place])
        now.body = auth_records_pb2.AuthenticatedRecord.FromString(before[place]).body
        put(own, {place: now.SerializeToString()})
        refused("INTERNAL", root.read, "undone/a")
        put(own, before)
        assert root.read("undone/a")["value"] == "deleted once"
        made = root.call("POST", "/v1/tokens", {"policies": ["default"]})
        with own.rest(str(made["token"])) as small:
            refused("PERMISSION_DENIED", small.read, "undone/a")
        # Replayed: a token's record from before its revocation. Its marker is still there, and so is the
        # entry of its revocation in the chain.
        key = keyspace.token(token_format.digest(str(made["token"])))
        record = rows(own, key)[key]
        root.call("DELETE", f"/v1/tokens/{made['accessor']}")
        put(own, {key: record})
        listed = root.call("GET", "/v1/audit", op="RevokeToken", limit=1000)["entries"]
        assert listed
        put(own, {key: None})


@pytest.mark.heavy
def test_an_old_term_is_retired_when_nothing_is_under_it(own: Cluster) -> None:
    with own.rest(own.root_token, 0, Patience()) as root:
        root.write("retired/a", "x")
        term = root.call("POST", "/v1/sys/rotate")["term"]
        eventually(90, _require_terms, root, [term])
        assert terms_in(rows(own)) == {term}
        assert root.read("retired/a")["value"] == "x"
        assert root.call("POST", "/v1/sys/seal", {})["sealed"] is True
    for number, share in enumerate(own.shares[:2]):
        with own.rest(node=number) as rest:
            eventually(10, rest.call, "POST", "/v1/sys/unseal", {"share": share})
    with own.rest(own.root_token, 0) as root:
        assert eventually(30, root.read, "retired/a")["value"] == "x"


@pytest.mark.heavy
def test_no_key_is_in_memory_where_and_when_it_must_not_be(own: Cluster) -> None:
    if os.geteuid() != 0:
        pytest.fail("only root may read another process's memory: run this as root")
    shares = [Share.decode(share) for share in own.shares[:2]]
    with own.rest(own.root_token, 0, Patience()) as root:
        root.write("memory/a", "x")
        root.read("memory/a")
    keys = keys_of(own, shares)
    root_keys = {"unseal key": combine(shares), "root key": keys["root key"]}
    root_keys |= {name: key for name, key in keys.items() if name.startswith("KEK")}
    # After use: the root key in the seal processes alone, which is what they are for.
    in_seal = _found(own, root_keys, "seal")
    assert all(one["root key"] for one in in_seal.values()), "the search finds nothing: it proves nothing"
    assert _found(own, root_keys, "kv", "auth", "lease", "audit", "etcd", "envoy") == {}
    # After seal: in no process at all, once each seal process has been replaced.
    with own.rest(own.root_token, 1, Patience()) as root:
        assert root.call("POST", "/v1/sys/seal", {})["unconfirmed"] == []
    everybody = ("seal", "kv", "auth", "lease", "audit", "etcd", "envoy")
    deadline = time.monotonic() + 30
    while (left := _found(own, root_keys, *everybody)) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == {}
    # Before unsealing: all processes are new, and have none of any kind.
    own.down()
    own.up(unseal=False)
    assert _found(own, root_keys | keys, *everybody) == {}
    for number, share in enumerate(own.shares[:2]):
        with own.rest(node=number) as rest:
            eventually(10, rest.call, "POST", "/v1/sys/unseal", {"share": share})
    with own.rest(own.root_token, 0) as root:
        eventually(30, root.read, "memory/a")


def _found(own: Cluster, needles: Mapping[str, bytes], *names: str) -> dict[str, dict[str, int]]:
    """By process, what of it is there and how often."""
    found = {}
    for process in own.processes():
        if process.name in names:
            there = {what: count for what, count in copies(process.pid, needles).items() if count}
            if there:
                found[f"{process.node}/{process.name}"] = there
    return found
