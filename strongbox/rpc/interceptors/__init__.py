"""What is done once for every call, at the border of a service: see `server_interceptor`."""

from __future__ import annotations

from strongbox.rpc.interceptors.server_interceptor import Border

__all__ = ["Border"]
