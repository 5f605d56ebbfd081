"""A real etcd for what is tried without processes."""

from __future__ import annotations

from tests.support.etcd import etcd_member

__all__ = ["etcd_member"]
