"""The auth service: tokens and policies, and the duty that tidies them. Only assembles."""

from __future__ import annotations

from services.auth.repository import Repository
from services.auth.servicer import AuthServicer
from services.auth.tidy import Tidy
from strongbox.access.guard import Guard
from strongbox.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from strongbox.process import Runtime, run
from strongbox.process.rewrap import Rewrap, authenticated


async def assemble(runtime: Runtime) -> None:
    """Serve AuthService; tidy while this replica holds the duty."""
    guard = Guard(runtime.keys)
    servicer = AuthServicer(runtime.pipeline, guard)
    runtime.serve(add_AuthServiceServicer_to_server, servicer, "strongbox.auth.v1.AuthService")
    tidy = Tidy(runtime.pipeline, Repository(guard.lookup), runtime.clock)
    runtime.duty("tidy", tidy.work)
    kinds = authenticated("auth")
    runtime.duty("rewrap-auth", Rewrap(runtime.etcd, runtime.keys, runtime.clock, "auth", kinds).work)


if __name__ == "__main__":
    run("auth", assemble)
