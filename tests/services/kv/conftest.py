"""Fixtures of kv's tests."""

from __future__ import annotations

import pytest

from tests.services.kv.support import Kv
from tests.support.etcd import etcd_member

__all__ = ["etcd_member"]


@pytest.fixture
def kv() -> Kv:
    """A service with an empty store."""
    return Kv()
