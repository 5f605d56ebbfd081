"""The kv service: secrets, and the duty that purges destroyed ones. Only assembles."""

from __future__ import annotations

from services.kv.purge import Purge
from services.kv.room import Room
from services.kv.servicer import KVServicer
from services.kv.watching import Watching
from strongbox.access.guard import Guard
from strongbox.kv.v1.kv_service_pb2_grpc import add_KVServiceServicer_to_server
from strongbox.process import Runtime, run


async def assemble(runtime: Runtime) -> None:
    """Serve KVService; purge while this replica holds the duty."""
    guard = Guard(runtime.keys)
    watching = Watching(runtime.pipeline, guard, runtime.etcd)
    members = [member.address for member in runtime.etcd.ring.members]
    room = Room(runtime.etcd, members, runtime.settings.etcd_quota_mib << 20)
    servicer = KVServicer(runtime.pipeline, guard, runtime.keys, watching, room)
    runtime.serve(add_KVServiceServicer_to_server, servicer, "strongbox.kv.v1.KVService")
    runtime.spawn(room.keep())
    runtime.duty("purge", Purge(runtime.pipeline, runtime.etcd, members, runtime.clock).work)


if __name__ == "__main__":
    run("kv", assemble)
