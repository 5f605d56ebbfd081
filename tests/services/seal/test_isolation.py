"""A replica that is cut off, or stopped, uses its keys for 2 s at most, and has none after 10 s."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from services.seal.custody.held_keys import PROOF_S, WIPE_AFTER_S
from strongbox.crypto.envelope import Dek, WrappedDek
from strongbox.errors import StrongBoxError
from strongbox.rpc.key_client import KeyClient
from strongbox.rpc.seal_stream import Link, LinkDown
from strongbox.seal.v1 import seal_peer_service_pb2 as peer
from tests.services.seal.nodes import SealNode, SealNodes
from tests.services.seal.test_processes import seal
from tests.support.proxy import TcpProxy

TICK = 0.4  # seconds: asking costs this much on a busy machine


class Asking:
    """kv's questions to one replica alone."""

    def __init__(self, nodes: SealNodes, node: SealNode) -> None:
        settings = nodes.settings(node.name, "kv").model_copy(update={"seal_addresses": (node.address,)})
        self.client = KeyClient(settings)
        self.link: Link = self.client._links[0]

    async def unwrap(self, wrapped: WrappedDek) -> bool:
        """Whether it opens a key now; raises nothing."""
        try:
            return bool(await self.client.unwrap([wrapped]))
        except StrongBoxError:
            return False


async def test_a_replica_that_is_cut_off_stops_within_two_seconds_and_wipes_itself_within_ten() -> None:
    with SealNodes() as nodes:
        target = nodes.etcd.endpoints[0]
        proxy = TcpProxy(target.rpartition("/")[2])
        await proxy.accept()
        lonely, other = nodes[2], nodes[0]
        lonely.kill()
        lonely.settings["ETCD_ENDPOINTS"] = target.replace(target.rpartition("/")[2], proxy.endpoint)
        lonely.start()
        await asyncio.to_thread(nodes.wait, lambda: lonely.is_sealed() is not None)
        await asyncio.to_thread(nodes.wait, lambda: sum(one.live for one in other.health().nodes) == 3)
        made = await asyncio.to_thread(nodes.unsealed)
        asking, elsewhere = Asking(nodes, lonely), Asking(nodes, other)
        (wrapped,) = await asking.client.wrap([Dek.fresh()])
        assert await asking.unwrap(wrapped)

        proxy.hold()
        cut = time.monotonic()
        last = cut
        while time.monotonic() - cut < PROOF_S + 2:
            asked = time.monotonic()
            if await asking.unwrap(wrapped):
                last = asked
            await asyncio.sleep(0.02)
        assert last - cut <= PROOF_S + TICK, f"still unwrapped {last - cut:.2f} s after it was cut off"
        assert last - cut > 0.5, "it gave up at once: nothing was tried"
        assert await elsewhere.unwrap(wrapped), "the majority goes on"

        told = await asyncio.to_thread(seal, other, made)
        assert (list(told.confirmed), list(told.unconfirmed)) == (["node-1", "node-2"], ["node-3"])
        assert not await asking.unwrap(wrapped)
        left = WIPE_AFTER_S + 1 - (time.monotonic() - cut)
        await asyncio.to_thread(nodes.wait, lambda: _wiped(lonely), left)
        proxy.release()
        await asyncio.to_thread(nodes.wait, lambda: lonely.is_sealed() is True)
        assert not await asking.unwrap(wrapped)
        for one in (asking, elsewhere):
            await one.client.close()
        await proxy.cut(refuse=True)


@pytest.mark.heavy
async def test_what_was_asked_of_a_stopped_replica_is_refused_when_it_wakes_after_a_seal() -> None:
    with SealNodes() as nodes:
        made = await asyncio.to_thread(nodes.unsealed)
        asking = Asking(nodes, nodes[2])
        (wrapped,) = await asking.client.wrap([Dek.fresh()])
        assert await asking.unwrap(wrapped)
        nodes[2].signal(signal.SIGSTOP)
        request = peer.StreamKeysRequest(unwrap=[
            peer.WrappedDataKey(id=wrapped.id, term=wrapped.term, ciphertext=wrapped.ciphertext,
                                tag=wrapped.tag, nonce=wrapped.nonce)
        ])  # fmt: skip
        # It lies in the stopped process's socket all the time that the cluster is being sealed.
        waiting = asyncio.create_task(asking.link.ask(request, 20))
        await asyncio.sleep(0.2)
        told = await asyncio.to_thread(seal, nodes[0], made)
        assert list(told.unconfirmed) == ["node-3"]
        nodes[2].signal(signal.SIGCONT)
        try:
            answer = await waiting
        except LinkDown:
            answer = peer.StreamKeysResponse(error="gone")
        assert answer.error
        assert not answer.unwrapped
        await asyncio.to_thread(nodes.wait, lambda: nodes[2].is_sealed() is True)
        await asking.client.close()


def _wiped(node: SealNode) -> bool:
    return "the keys are wiped" in node.log.read_text()
