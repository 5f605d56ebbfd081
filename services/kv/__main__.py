"""The kv service: secrets, and the duty that purges destroyed ones. Only assembles."""

from __future__ import annotations

from services.kv.purge import Purge
from services.kv.servicer import KVServicer
from services.kv.watching import Watching
from strongbox.access.guard import Guard
from strongbox.kv.v1.kv_service_pb2_grpc import add_KVServiceServicer_to_server
from strongbox.process import Runtime, run


async def assemble(runtime: Runtime) -> None:
    """Serve KVService; purge while this replica holds the duty."""
    guard = Guard(runtime.keys)
    watching = Watching(runtime.pipeline, guard, runtime.etcd)
    servicer = KVServicer(runtime.pipeline, guard, runtime.keys, watching)
    runtime.serve(add_KVServiceServicer_to_server, servicer, "strongbox.kv.v1.KVService")
    members = [member.address for member in runtime.etcd.ring.members]
    runtime.duty("purge", Purge(runtime.pipeline, runtime.upkeep, members, runtime.clock).work)


if __name__ == "__main__":
    run("kv", assemble)
