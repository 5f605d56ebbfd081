"""A StrongBox in memory behind a real gRPC server, for tests of the client and the command.

It keeps what it is told and refuses as the real one does, by the same errors over the same border
(strongbox.rpc.error_mapping). It neither encrypts nor authorizes: a token is good when it is `TOKEN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from strongbox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from strongbox.auth.v1 import auth_service_pb2_grpc as auth_grpc
from strongbox.kv.v1 import kv_service_pb2_grpc as kv_grpc
from strongbox.lease.v1 import lease_service_pb2_grpc as lease_grpc
from strongbox.seal.v1 import seal_service_pb2_grpc as seal_grpc
from tests.support.fake_strongbox.audit import FakeAudit
from tests.support.fake_strongbox.auth import FakeAuth
from tests.support.fake_strongbox.kv import FakeKV
from tests.support.fake_strongbox.lease import FakeLease
from tests.support.fake_strongbox.seal import FakeSeal
from tests.support.fake_strongbox.world import KEY_FILE, PASSWORD, REQUEST_ID, SHARES, TOKEN, FakeLog, World

__all__ = ["KEY_FILE", "PASSWORD", "REQUEST_ID", "SHARES", "TOKEN", "FakeLog", "World", "serving"]


@contextmanager
def serving(world: World) -> Iterator[World]:
    """Run the fake on a free port; `world.target` is its host:port."""
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool)
    seal_grpc.add_SealServiceServicer_to_server(FakeSeal(world), server)
    kv_grpc.add_KVServiceServicer_to_server(FakeKV(world), server)
    auth_grpc.add_AuthServiceServicer_to_server(FakeAuth(world), server)
    lease_grpc.add_LeaseServiceServicer_to_server(FakeLease(world), server)
    audit_grpc.add_AuditServiceServicer_to_server(FakeAudit(world), server)
    world.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield world
    finally:
        server.stop(None).wait(5.0)
        pool.shutdown()
