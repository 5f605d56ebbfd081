"""Fixtures of the store's tests: real etcd, and a client made in the test's own event loop."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from strongbox.store.etcd.client import Etcd
from tests.support.etcd import EtcdCluster, etcd_cluster, etcd_member

__all__ = ["etcd_cluster", "etcd_member"]


@pytest.fixture
async def etcd(etcd_member: EtcdCluster) -> AsyncIterator[Etcd]:
    """A client of the shared single member."""
    client = Etcd(etcd_member.endpoints)
    yield client
    await client.close()


@pytest.fixture
async def three(etcd_cluster: EtcdCluster) -> AsyncIterator[Etcd]:
    """A client of a three-member cluster that the test may damage."""
    client = Etcd(etcd_cluster.endpoints)
    yield client
    await client.close()


@pytest.fixture
def prefix() -> bytes:
    """Keys of this test alone."""
    return f"/test/{secrets.token_hex(6)}/".encode()
