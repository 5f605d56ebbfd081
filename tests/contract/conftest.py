"""One unsealed three-node cluster for all contract tests; clients that bear a machine too busy for etcd."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import GrpcClient, Patience, RestClient
from tests.support.cluster import Cluster, cluster, end_shared

__all__ = ["cluster"]
_numbers = itertools.count(1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """The cluster ends with the last of these tests."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        end_shared()


@pytest.fixture
def root(cluster: Cluster) -> Iterator[RestClient]:
    """REST with the root token, through the first gateway."""
    with cluster.rest(cluster.root_token, 0, Patience()) as client:
        yield client


@pytest.fixture
def native(cluster: Cluster) -> Iterator[GrpcClient]:
    """Native gRPC with the root token, through the second gateway."""
    with cluster.grpc(cluster.root_token, 1, Patience()) as client:
        yield client


@pytest.fixture
def anyone(cluster: Cluster) -> Iterator[RestClient]:
    """REST without a token."""
    with cluster.rest("", 0, Patience()) as client:
        yield client


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name that no other test has: `fresh("path")` is `path-7`."""
    return lambda stem: f"{stem}-{next(_numbers)}"
