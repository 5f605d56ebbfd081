"""What the audit service needs of its neighbours: its keys opened by seal, and channels to its peers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from services.audit.keys import OpenKeys
from strongbox.access.authenticated_records import term_in_use
from strongbox.audit_log.chain import FIRST_TERM
from strongbox.audit_log.checkpoint import origin_of
from strongbox.crypto.aead import new_key
from strongbox.crypto.ed25519 import SigningKey
from strongbox.crypto.envelope import Dek, Envelope, open_value, seal_value
from strongbox.crypto.errors import IntegrityError
from strongbox.errors import DependencyDown, NotInitialized
from strongbox.process import Runtime
from strongbox.process.presence import address_in
from strongbox.rewrap.rewrap_kinds import Inner, Kind, renew_envelopes, renew_messages
from strongbox.rpc.channel import open_channel
from strongbox.rpc.key_client import KeyClient
from strongbox.storage.v1 import audit_records_pb2 as records
from strongbox.storage.v1 import envelope_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.envelope_records import from_record, to_record
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import KV, Etcd, rows_of

PURPOSE = "audit"
CHAIN_PATH = "audit/key"
SIGNING_PATH = "audit/signing-key"
SIGNING_VERSION = 1
_log = structlog.get_logger(__name__)


async def open_keys(etcd: Etcd, keys: KeyClient) -> OpenKeys:
    """Every key of the audit service; the signing key is made if there is none.

    Raises NotInitialized, Sealed, DependencyDown, EtcdError; IntegrityError when somebody altered the first
    HMAC key or the signing key. A later HMAC key that was not made by us is left out. That is decided only by
    an answer that leaves no doubt (`_open_later`); until there is one, DependencyDown is raised.
    """
    first, cluster, signing, state, later = await _read(etcd)
    if first is None or cluster is None:
        raise NotInitialized
    chain = {FIRST_TERM: await _open(keys, _envelope(first.value), CHAIN_PATH, FIRST_TERM)}
    created = {FIRST_TERM: 0}
    for row in later:
        in_use = term_in_use(state.value if state is not None else None)
        try:
            term = int(row.key.removeprefix(keyspace.AUDIT_KEYS))
            chain[term] = await _open_later(keys, _envelope(row.value), term, in_use)
        except (IntegrityError, DecodeError, ValueError):
            _log.error(
                "an audit key does not open and is passed over", key=row.key.decode("ascii", "replace")
            )
            continue
        created[term] = row.create_revision
    return OpenKeys(
        chain, created, await _signing_key(etcd, keys, signing), origin_of(cluster.value.decode())
    )


REWRAPPED = (
    *(Kind(prefix, renew_envelopes) for prefix in keyspace.ENVELOPES["audit"]),
    Kind(keyspace.AUDIT_SIGNING_KEY, renew_messages(Inner(records.SigningKey, "seed"))),
)


async def new_chain_key(keys: KeyClient, term: int) -> storage.Envelope:
    """A fresh HMAC key, as it is stored for `term`. Raises Sealed, DependencyDown."""
    return to_record(await _seal(keys, new_key(), CHAIN_PATH, term))


async def live_peers(runtime: Runtime) -> Sequence[grpc.aio.Channel]:
    """A channel to every other live audit replica, by what their session keys say."""
    prefix = keyspace.NODES + b"audit/"
    rows = (await runtime.etcd.range(prefix, keyspace.prefix_end(prefix))).rows
    own = keyspace.node("audit", runtime.settings.node_id)
    addresses = [address for row in rows if row.key != own and (address := address_in(row.value))]
    return [open_channel(address, "audit", runtime.settings) for address in addresses]


async def _read(etcd: Etcd) -> tuple[KV | None, KV | None, KV | None, KV | None, tuple[KV, ...]]:
    singles = (keyspace.AUDIT_KEY, keyspace.CLUSTER_ID, keyspace.AUDIT_SIGNING_KEY, keyspace.SEAL_STATE)
    later = txn.range_(keyspace.AUDIT_KEYS, keyspace.prefix_end(keyspace.AUDIT_KEYS))
    reply = await etcd.transact(txn.txn([], [*map(txn.range_, singles), later]), idempotent=True)
    *found, rest = (rows_of(part.response_range) for part in reply.responses)
    first, cluster, signing, state = (next(iter(rows), None) for rows in found)
    return first, cluster, signing, state, rest


async def _signing_key(etcd: Etcd, keys: KeyClient, row: KV | None) -> SigningKey:
    """The signing key in etcd, made if there is none. Raises NotInitialized, IntegrityError."""
    if row is None:
        pass_ = await etcd.get(keyspace.REWRAPS["audit"])
        seed = new_key()
        sealed = to_record(await _seal(keys, seed, SIGNING_PATH, SIGNING_VERSION))
        made = records.SigningKey(public_key=SigningKey(seed).public, seed=sealed)
        put = txn.put(keyspace.AUDIT_SIGNING_KEY, made.SerializeToString())
        absent = txn.mod_is(keyspace.AUDIT_SIGNING_KEY, 0)
        # Not put behind a pass that rewraps: it would be lost with the old key term.
        unmoved = txn.mod_is(keyspace.REWRAPS["audit"], pass_.mod_revision if pass_ else 0)
        await etcd.transact(txn.txn([absent, unmoved], [put]), idempotent=True)
        row = await etcd.get(keyspace.AUDIT_SIGNING_KEY)
        if row is None:
            raise NotInitialized
    record = records.SigningKey.FromString(row.value)
    key = SigningKey(await _open(keys, from_record(record.seed), SIGNING_PATH, SIGNING_VERSION))
    if key.public != record.public_key:  # both are public: the comparison need not take constant time
        raise IntegrityError
    return key


async def _open_later(keys: KeyClient, envelope: Envelope, term: int, in_use: int) -> bytes:
    """The HMAC key of a later term. Raises IntegrityError when it was not made by us, DependencyDown when the
    seal service does not know for certain, and what `unwrap` does.

    A seal replica refuses as well when it has not heard of the key term, so a refusal alone is not enough.
    `in_use` is the key term in use at the revision at which the envelope was read:
    * A newer term: nothing is ever wrapped under it (a rotation's transaction compares the seal state). It is
      a forgery.
    * An older term: every replica holds it, or it is retired and nothing of ours is under it. A refusal is
      final.
    * This term: the same replica unwraps, in the same answer, a data key that was wrapped a moment ago. If
      that does not open either, the replica is behind.
    """
    wrapped = envelope.wrapped
    if wrapped.term > in_use:
        raise IntegrityError
    try:
        return await _open(keys, envelope, CHAIN_PATH, term)
    except IntegrityError:
        if wrapped.term < in_use:
            raise
    (fresh,) = await keys.wrap([Dek.fresh()])
    answers = keys.unwrap_soon(fresh), keys.unwrap_soon(wrapped)  # in one tick, so by one replica
    (control,), (data_key,) = await asyncio.gather(*answers)
    if data_key:
        return open_value(data_key, envelope, PURPOSE, CHAIN_PATH, term)
    if fresh.term != wrapped.term or not control:
        raise DependencyDown("a seal replica has not heard of the key term of an audit key")
    raise IntegrityError


async def _open(keys: KeyClient, envelope: Envelope, path: str, version: int) -> bytes:
    (data_key,) = await keys.unwrap([envelope.wrapped])
    return open_value(data_key, envelope, PURPOSE, path, version)


async def _seal(keys: KeyClient, key: bytes, path: str, version: int) -> Envelope:
    dek = Dek.fresh()
    (wrapped,) = await keys.wrap([dek])
    return seal_value(dek, wrapped, PURPOSE, path, version, key)


def _envelope(value: bytes) -> Envelope:
    return from_record(storage.Envelope.FromString(value))
