"""Fixtures of the lease service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.lease.support import Lease
from tests.services.lease.workshop import Workshop, found_cluster, workshop
from tests.support.etcd import EtcdCluster, etcd_member
from tests.support.postgres import PASSWORD, PostgresServer, postgres

__all__ = ["etcd_member", "postgres"]


@pytest.fixture
def lease() -> Lease:
    """A service without leases."""
    return Lease()


@pytest.fixture
async def shop(postgres: PostgresServer) -> AsyncIterator[Workshop]:
    """A cluster of one etcd member and the session's PostgreSQL."""
    if not postgres.ask("SELECT 1 FROM pg_roles WHERE rolname = 'crash_template'"):
        postgres.ask("CREATE ROLE crash_template NOLOGIN")
    with EtcdCluster(1) as etcd:
        root = await found_cluster(etcd.endpoints)
        async with workshop(etcd.endpoints, root) as made:
            await made.call(
                "WritePostgresConnection", name="c", dsn=postgres.dsn, username="postgres", password=PASSWORD
            )
            await made.call("WritePostgresRole", name="c", connection="c", template_role="crash_template")
            yield made
    for name in postgres.roles():  # of a test that failed
        postgres.ask(f"DROP OWNED BY {name}; DROP ROLE {name}")
