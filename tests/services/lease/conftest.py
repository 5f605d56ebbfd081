"""Fixtures of the lease service's tests."""

from __future__ import annotations

import pytest

from tests.services.lease.support import Lease
from tests.support.etcd import etcd_member
from tests.support.postgres import postgres

__all__ = ["etcd_member", "postgres"]


@pytest.fixture
def lease() -> Lease:
    """A service without leases."""
    return Lease()
