"""One etcd member per test: the chain follows a whole prefix, so tests cannot share one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from strongbox.store.etcd.client import Etcd
from tests.support.etcd import EtcdCluster


@pytest.fixture
def member() -> Iterator[EtcdCluster]:
    """A single member with nothing in it."""
    with EtcdCluster(1) as cluster:
        yield cluster


@pytest.fixture
async def etcd(member: EtcdCluster) -> AsyncIterator[Etcd]:
    """A client of it."""
    client = Etcd(member.endpoints)
    yield client
    await client.close()
