"""What waits for etcd is bounded by the bytes it keeps in memory, from the moment it is taken."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from services.kv.servicer import KVServicer
from services.kv.watching.watch_secrets import Watching
from strongbox.audit_outbox.outbox import Outbox
from strongbox.clock import SystemClock
from strongbox.errors import NoQuorum, Overloaded, UnknownOutcome
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.rpc.request_context import Inbound, bind
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.pipeline import MAX_WAITING_BYTES, Pipeline
from tests.services.kv.support import Kv

SIZE = 512 << 10


class Slow:
    """An etcd that does not answer."""

    async def get(self, *_: Any, **__: Any) -> None:
        return None

    async def transact(self, *_: Any, **__: Any) -> None:
        await asyncio.Event().wait()


async def test_large_writes_that_wait_are_few_and_room_comes_back_when_they_are_over() -> None:
    kv, many = Kv(), 40
    slow: Any = Slow()
    pipeline = Pipeline(slow, Memory(), Outbox("kv"), SystemClock())
    servicer = KVServicer(pipeline, kv.guard, kv.key_client, Watching(pipeline, kv.guard, slow))

    async def write(number: int) -> None:
        bind(Inbound(kv.root, f"r{number}", "c", idempotency_key="", deadline=time.monotonic() + 30))
        request = pb.WriteSecretRequest(path=f"t/{number}", value="x" * SIZE)
        await servicer.WriteSecret(request, cast("Any", None))

    await pipeline.start()
    tasks = [asyncio.create_task(write(number)) for number in range(many)]
    most = MAX_WAITING_BYTES // (4 * SIZE)
    async with asyncio.timeout(10):
        while sum(task.done() for task in tasks) < many - most:
            await asyncio.sleep(0.01)
    ends = [task.exception() for task in tasks if task.done()]
    assert most - 2 <= many - len(ends) <= most
    assert all(isinstance(end, Overloaded) for end in ends)
    await pipeline.close()
    async with asyncio.timeout(5):  # long before their deadlines: who stops leaves nobody waiting
        left = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(end, NoQuorum | UnknownOutcome) for end in left) == many - len(ends)
    assert pipeline._waiting_bytes == 0
