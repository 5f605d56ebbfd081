"""The audit record is not put by the transaction of its effect, but a moment later by one of its own."""

import asyncio
from typing import Any

from strongbox.store import keyspace
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd
from tests.robustness.planted.building import after_building

_apart: dict[int, list[tuple[int, Any]]] = {}
_tasks: set[asyncio.Task[Any]] = set()
_transact = Etcd.transact


def _change(request: Any) -> None:
    found = []
    for index, part in enumerate(request.success[1:], 1):
        operations = list(part.request_txn.success)
        record = [one for one in operations if one.request_put.key.startswith(keyspace.OUTBOX)]
        del part.request_txn.success[:]
        part.request_txn.success.extend(one for one in operations if one not in record)
        found += [(index, one) for one in record]
    _apart[id(request)] = found


async def _changed(self: Etcd, request: Any, **named: Any) -> Any:
    records = _apart.pop(id(request), [])
    reply = await _transact(self, request, **named)
    late = [record for i, record in records if reply.succeeded and reply.responses[i].response_txn.succeeded]
    if late:
        task = asyncio.create_task(_put(self, late))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    return reply


async def _put(etcd: Etcd, records: list[Any]) -> None:
    await asyncio.sleep(0.1)
    await _transact(etcd, txn.txn([], records), idempotent=True)


after_building(_change)
Etcd.transact = _changed  # type: ignore[method-assign]
