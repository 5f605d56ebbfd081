"""Rotation, rekey and generate-root over running seal processes, with replicas killed in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from strongbox.crypto.envelope import Dek
from strongbox.crypto.shamir import Share
from strongbox.rpc.key_client import KeyClient
from strongbox.seal.v1 import seal_service_pb2 as pb
from tests.services.seal.nodes import SealNode, SealNodes
from tests.services.seal.test_processes import bearer, everything, reason, seal


@pytest.fixture
def nodes() -> Iterator[SealNodes]:
    with SealNodes() as found:
        yield found


def start(node: SealNode, share: str, shares: int = 5, threshold: int = 3) -> pb.StartRekeyResponse:
    return node.ask.StartRekey(
        pb.StartRekeyRequest(share=share, shares=shares, threshold=threshold), timeout=6
    )


def update(node: SealNode, nonce: str, share: str) -> pb.UpdateRekeyResponse:
    return node.ask.UpdateRekey(pb.UpdateRekeyRequest(nonce=nonce, share=share), timeout=6)


def verify(node: SealNode, nonce: str, share: str) -> pb.VerifyRekeyResponse:
    return node.ask.VerifyRekey(pb.VerifyRekeyRequest(nonce=nonce, share=share), timeout=6)


def cancel(node: SealNode, nonce: str) -> None:
    node.ask.CancelRekey(pb.CancelRekeyRequest(nonce=nonce), timeout=6)


def refused(why: str, call: object, *args: object) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        call(*args)  # type: ignore[operator]
    assert reason(refusal) == why


def restart(nodes: SealNodes, node: SealNode) -> None:
    node.kill()
    node.start()
    nodes.wait(lambda: node.is_sealed() is False)


def test_a_rekey_survives_the_loss_of_each_replica_in_turn(nodes: SealNodes) -> None:
    refused("NOT_INITIALIZED", start, nodes[0], Share(1, bytes(32)).encode())
    made = nodes.init()
    refused("SEALED", start, nodes[0], made.shares[0])
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        node.unseal(share)
    nodes.wait(lambda: all(node.is_sealed() is False for node in nodes.all), 5)

    refused("WRONG_SHARE", start, nodes[0], Share(1, bytes(32)).encode())
    refused("INVALID_ARGUMENT", start, nodes[0], made.shares[0], 2, 3)
    begun = start(nodes[0], made.shares[0])
    assert (begun.progress, begun.complete, list(begun.shares)) == ("1/2", False, [])
    assert len(begun.nonce) >= 32
    assert begun.nonce.encode() not in everything(nodes), "etcd's readers could drive it"
    wrong = begun.nonce[:-1] + ("y" if begun.nonce.endswith("x") else "x")
    # Nobody without the nonce goes on, cancels, or begins another.
    for node in nodes.all:
        refused("INVALID_ARGUMENT", start, node, made.shares[1])
        refused("PERMISSION_DENIED", update, node, "", made.shares[1])
        refused("PERMISSION_DENIED", cancel, node, wrong)
        refused("INVALID_ARGUMENT", verify, node, begun.nonce, made.shares[1])
        refused("REPEATED_SHARE", update, node, begun.nonce, made.shares[0])
        refused("WRONG_SHARE", update, node, begun.nonce, Share(2, bytes(32)).encode())
    nodes[0].kill()  # who took the first share
    done = update(nodes[1], begun.nonce, made.shares[1])
    assert (done.progress, done.complete, done.threshold, len(done.shares)) == ("2/2", True, 3, 5)
    refused("INVALID_ARGUMENT", update, nodes[2], begun.nonce, made.shares[2])
    restart(nodes, nodes[0])
    nodes[1].kill()  # who made the new ones
    new = list(done.shares)
    assert verify(nodes[0], begun.nonce, new[4]).progress == "1/3"
    refused("REPEATED_SHARE", verify, nodes[2], begun.nonce, new[4])
    refused("WRONG_SHARE", verify, nodes[2], begun.nonce, made.shares[0])
    assert verify(nodes[2], begun.nonce, new[0]).progress == "2/3"
    # The old ones are alive until the last is verified.
    assert not nodes[0].unseal(made.shares[0]).sealed
    restart(nodes, nodes[1])
    last = verify(nodes[1], begun.nonce, new[2])
    assert (last.progress, last.complete) == ("3/3", True)
    refused("WRONG_SHARE", nodes[0].unseal, made.shares[0])

    seal(nodes[0], made)
    for share in made.shares:
        refused("WRONG_SHARE", nodes[1].unseal, share)
    for number, share in enumerate((new[1], new[3], new[4])):
        told = nodes[number].unseal(share)
    assert not told.sealed
    stored = everything(nodes)
    for share in (*made.shares, *new):
        assert share.encode() not in stored
        assert Share.decode(share).data not in stored
        assert share not in nodes.logs()


def test_a_rekey_is_cancelled_by_its_nonce_and_ended_by_sealing(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    begun = start(nodes[0], made.shares[0])
    cancel(nodes[1], begun.nonce)
    refused("INVALID_ARGUMENT", update, nodes[0], begun.nonce, made.shares[1])
    second = start(nodes[2], made.shares[0])
    assert second.nonce != begun.nonce
    seal(nodes[0], made)
    refused("SEALED", cancel, nodes[1], second.nonce)
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        node.unseal(share)
    nodes.wait(lambda: all(node.is_sealed() is False for node in nodes.all), 5)
    refused("INVALID_ARGUMENT", update, nodes[0], second.nonce, made.shares[1])
    # Shares at two nodes at the same moment: one of them completes, and only one gets new shares.
    third = start(nodes[0], made.shares[0], 3, 2)
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda n: _outcome(nodes[n], third.nonce, made.shares[n]), (1, 2)))
    assert sum(bool(one and one.complete) for one in told) == 1, told


def _outcome(node: SealNode, nonce: str, share: str) -> pb.UpdateRekeyResponse | None:
    try:
        return update(node, nonce, share)
    except grpc.RpcError:
        return None


def test_generate_root_gives_a_token_to_who_completes(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    ask = pb.StartGenerateRootRequest
    refused("WRONG_SHARE", nodes[0].ask.StartGenerateRoot, ask(share=Share(3, bytes(32)).encode()))
    begun = nodes[0].ask.StartGenerateRoot(ask(share=made.shares[2]), timeout=6)
    assert (begun.progress, begun.complete, begun.root_token) == ("1/2", False, "")
    nodes[0].kill()
    wrong = pb.CancelGenerateRootRequest(nonce="")
    refused("PERMISSION_DENIED", nodes[1].ask.CancelGenerateRoot, wrong)
    # Every replica that heard the first share begins a new life before the second comes.
    restart(nodes, nodes[1])
    restart(nodes, nodes[2])
    request = pb.UpdateGenerateRootRequest(nonce=begun.nonce, share=made.shares[0])
    told = nodes[1].ask.UpdateGenerateRoot(request, timeout=6)
    if not told.complete:  # the first share died with its holders: it is asked for again
        assert told.progress == "1/2"
        again = pb.UpdateGenerateRootRequest(nonce=begun.nonce, share=made.shares[2])
        told = nodes[2].ask.UpdateGenerateRoot(again, timeout=6)
    assert (told.complete, told.progress) == (True, "2/2")
    refused("INVALID_ARGUMENT", nodes[2].ask.UpdateGenerateRoot, request)
    assert told.root_token.encode() not in everything(nodes)
    metadata = (("authorization", f"Bearer {told.root_token}"),)
    status = nodes[1].ask.GetKeyStatus(pb.GetKeyStatusRequest(), timeout=5, metadata=metadata)
    assert (status.term, status.rewrap.done, status.rewrap.total) == (1, 0, 0)


def test_a_rotation_is_used_by_every_replica_and_survives_their_loss(nodes: SealNodes) -> None:
    made = nodes.unsealed()
    refused("UNAUTHENTICATED", nodes[0].ask.RotateKeys, pb.RotateKeysRequest())
    asyncio.run(_rotate(nodes, made))


async def _rotate(nodes: SealNodes, made: pb.InitializeResponse) -> None:
    mine = bearer(made)
    client = KeyClient(nodes.settings("node-1", "kv"))
    await client.start()
    await asyncio.wait_for(client.wait_unsealed(), 5)
    deks = [Dek.fresh() for _ in range(300)]
    before = await client.wrap(deks)
    assert {one.term for one in before} == {1}

    def rotate(node: SealNode) -> pb.RotateKeysResponse:
        return node.ask.RotateKeys(pb.RotateKeysRequest(), timeout=6, metadata=mine)

    # Two at once are one.
    both = await asyncio.gather(*(asyncio.to_thread(rotate, node) for node in nodes.all[:2]))
    assert [one.term for one in both] == [2, 2]
    assert 0 == both[0].rewrap.done < both[0].rewrap.total
    assert client.record_keys is not None and {1, 2} <= set(client.record_keys.by_term)
    after = await client.wrap(deks)
    assert {one.term for one in after} == {2}
    assert await client.unwrap([*before, *after]) == [dek.key for dek in (*deks, *deks)]
    moved = await client.rewrap(before)
    assert all(one is not None and one.term == 2 for one in moved)
    assert await client.unwrap([one for one in moved if one]) == [dek.key for dek in deks]
    forged = [before[0].__class__(before[0].id, 1, bytes(32), before[0].tag, before[0].nonce)]
    assert await client.rewrap(forged) == [None]

    def look() -> pb.GetKeyStatusResponse:
        return nodes[2].ask.GetKeyStatus(pb.GetKeyStatusRequest(), timeout=5, metadata=mine)

    status, until = await asyncio.to_thread(look), time.monotonic() + 10
    while status.wraps < 600 and time.monotonic() < until:  # told once a second
        await asyncio.sleep(0.2)
        status = await asyncio.to_thread(look)
    assert (status.term, list(status.terms)) == (2, [1, 2])
    assert 600 <= status.wraps <= 3 * 4096

    # Who rotates is killed between staging and use: the duty puts the term in use.
    rotating = asyncio.get_running_loop().run_in_executor(None, _outcome_of, rotate, nodes[1])
    await asyncio.sleep(0.5)
    nodes[1].kill()
    await rotating
    deadline = time.monotonic() + 15
    while (await client.wrap(deks[:1]))[0].term != 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    await asyncio.to_thread(restart, nodes, nodes[1])
    # A replica that was away knows every term, and so does the cluster after sealing.
    assert await client.unwrap([before[0], after[0]]) == [deks[0].key] * 2
    await asyncio.to_thread(seal, nodes[0], made)
    for node, share in zip(nodes.all, made.shares[:2], strict=False):
        await asyncio.to_thread(node.unseal, share)
    await asyncio.wait_for(client.wait_unsealed(), 5)
    assert {one.term for one in await client.wrap(deks[:1])} == {3}
    assert await client.unwrap([before[0], after[0]]) == [deks[0].key] * 2
    await client.close()


def _outcome_of(rotate: object, node: SealNode) -> str:
    try:
        rotate(node)  # type: ignore[operator]
    except grpc.RpcError as error:
        return str(error.code())
    return ""
