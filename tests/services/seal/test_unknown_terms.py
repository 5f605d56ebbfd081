"""A replica that has missed a key term says that it does not know, and never that a key does not open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.seal.key_stream import KeyStream
from services.seal.key_terms.keyring_refresh import Refresher
from strongbox.crypto.envelope import Dek, WrappedDek
from strongbox.seal.v1 import seal_peer_service_pb2 as pb
from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from strongbox.store.etcd.errors import Unavailable
from tests.services.seal.key_terms.test_term_decisions import Life
from tests.support.etcd import EtcdCluster

_FORGED = 99


class Replica:
    """A replica with the keys of term 1, over a real etcd that can be taken away from it."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self.life = Life()
        self.looks = 0
        self.is_cut_off = False
        client: Any = self
        self._stream = KeyStream(self.life.custody, Refresher(client, self.life.custody), Unlimited())

    async def transact(self, *args: Any, **more: Any) -> Any:
        self.looks += 1
        if self.is_cut_off:
            raise Unavailable("etcd is away")
        return await self._etcd.transact(*args, **more)

    async def rotate(self) -> None:
        """By another replica: etcd has a second term, in use."""
        self.life.activate(self.life.stage())
        await self.publish()

    async def publish(self) -> None:
        several = (keyspace.SEAL_KEYRING, keyspace.SEAL_RECORD_KEY)
        puts = [txn.put(key, self.life.store.value(key) or b"") for key in several]
        await self._etcd.transact(txn.txn([], puts))

    async def unwrap(self, wrapped: WrappedDek) -> pb.StreamKeysResponse:
        request = pb.StreamKeysRequest(id=1, unwrap=[
            pb.WrappedDataKey(id=wrapped.id, term=wrapped.term, ciphertext=wrapped.ciphertext,
                              tag=wrapped.tag, nonce=wrapped.nonce)
        ])  # fmt: skip
        return await self._stream.answer("kv", request, None)

    async def wrap(self, term: int) -> pb.StreamKeysResponse:
        dek = Dek.fresh()
        request = pb.StreamKeysRequest(id=1, wrap=[pb.DataKey(id=dek.id, key=dek.key)], term=term)
        return await self._stream.answer("kv", request, None)


class Unlimited:
    """Wraps without an end."""

    def take(self, *_: object) -> bool:
        return True


@pytest.fixture
async def replica(etcd_member: EtcdCluster) -> AsyncIterator[Replica]:
    client = Etcd(etcd_member.endpoints)
    found = Replica(client)
    await found.publish()
    yield found
    await client.close()


async def test_a_term_that_cannot_be_looked_up_is_not_known_rather_than_wrong(replica: Replica) -> None:
    await replica.rotate()
    dek = Dek.fresh()
    (wrapped,) = replica.life.keys().wrap("kv", [dek])
    assert wrapped.term == 2
    replica.is_cut_off = True
    answer = await replica.unwrap(wrapped)
    assert (answer.error, len(answer.unwrapped)) == ("DEPENDENCY_DOWN", 0)
    assert (await replica.wrap(term=2)).error == "DEPENDENCY_DOWN", "nothing goes under an older term"
    replica.is_cut_off = False
    answer = await replica.unwrap(wrapped)
    assert [one.key for one in answer.unwrapped] == [dek.key]
    assert (await replica.wrap(term=2)).wrapped[0].term == 2


async def test_a_term_staged_a_moment_after_a_look_is_looked_up_again(replica: Replica) -> None:
    (forged,) = replica.life.keys().wrap("kv", [Dek.fresh()])
    forged = WrappedDek(forged.id, _FORGED, forged.ciphertext, forged.tag, forged.nonce)
    assert (await replica.unwrap(forged)).error == ""
    await replica.rotate()
    dek = Dek.fresh()
    (wrapped,) = replica.life.keys().wrap("kv", [dek])
    assert [one.key for one in (await replica.unwrap(wrapped)).unwrapped] == [dek.key]


async def test_a_forged_term_does_not_open_once_every_term_is_known(replica: Replica) -> None:
    (wrapped,) = replica.life.keys().wrap("kv", [Dek.fresh()])
    forged = WrappedDek(wrapped.id, _FORGED, wrapped.ciphertext, wrapped.tag, wrapped.nonce)
    answer = await replica.unwrap(forged)
    assert (answer.error, [one.key for one in answer.unwrapped]) == ("", [b""])
