"""What a request held is free when it is over, however it ended: a circle would keep a megabyte or two.

The collector of circles runs after some hundred requests only (strongbox.process.lifecycle).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from strongbox.errors import DependencyDown, StrongBoxError
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.store.decisions.view import View
from strongbox.store.decisions.work import Item
from tests.services.kv.test_over_etcd import Replica
from tests.services.kv.watching.test_watch_secrets import folder, kv
from tests.support.etcd import etcd_member
from tests.support.keys import FakeKeyClient

__all__ = ["etcd_member", "folder", "kv"]
Calls = Callable[[Replica, str], Awaitable[object]]


@pytest.fixture
async def collecting(kv: Replica) -> AsyncIterator[None]:
    """What only the collector of circles takes away stands in `gc.garbage`."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def write(kv: Replica, folder: str) -> None:
    await kv.write(f"{folder}/a", "v")


async def read(kv: Replica, folder: str) -> None:
    await kv.read(f"{folder}/there")


async def refused(kv: Replica, folder: str) -> None:
    await kv.write(f"{folder}/there", "v", cas=77)


async def absent(kv: Replica, folder: str) -> None:
    await kv.read(f"{folder}/none")


async def batch(kv: Replica, folder: str) -> None:
    references = [pb.SecretReference(path=f"{folder}/{name}") for name in ("there", "none", "there")]
    await kv.call("BatchReadSecrets", pb.BatchReadSecretsRequest(requests=references))


async def contended(kv: Replica, folder: str) -> None:
    await asyncio.gather(*(kv.write(f"{folder}/there", "v") for _ in range(10)))


async def unknown(kv: Replica, folder: str) -> None:
    kv.cluster.root = "sb.nobody"
    await kv.write(f"{folder}/there", "v")


async def without_a_key(kv: Replica, folder: str) -> None:
    cast("FakeKeyClient", kv.servicer._data_keys._keys).error = DependencyDown()
    await kv.write(f"{folder}/there", "v")


KINDS = [write, read, refused, absent, batch, contended, unknown, without_a_key]


@pytest.mark.parametrize("calls", KINDS, ids=lambda calls: calls.__name__)
async def test_a_request_that_is_over_leaves_no_circle(
    kv: Replica, folder: str, collecting: None, calls: Calls
) -> None:
    await kv.write(f"{folder}/there", "v")
    for _ in range(3):
        with contextlib.suppress(StrongBoxError):
            await calls(kv, folder)
    await asyncio.sleep(0)
    gc.collect()
    kinds = (Item, View, pb.WriteSecretRequest, StrongBoxError)
    assert not [one for one in gc.garbage if isinstance(one, kinds)]
