"""The kv service: secrets, and the duties that purge destroyed ones and rewrap. Only assembles."""

from __future__ import annotations

import secrets

from services.kv.purge_duty import Purge
from services.kv.repository import Repository
from services.kv.rewrap_heads import KINDS
from services.kv.servicer import KVServicer
from services.kv.watching.watch_secrets import Watching
from strongbox.access.guard import Guard
from strongbox.kv.v1.kv_service_pb2_grpc import add_KVServiceServicer_to_server
from strongbox.process import Runtime, run
from strongbox.rewrap.rewrap_duty import Rewrap
from strongbox.store.space.defragment import Defragmenter
from strongbox.store.space.room_keeper import Keeper


async def assemble(runtime: Runtime) -> None:
    """Serve KVService; purge while this replica holds the duty."""
    guard = Guard(runtime.keys)
    watching = Watching(runtime.pipeline, guard, runtime.etcd)
    members = [member.address for member in runtime.etcd.ring.members]
    defragmenter = Defragmenter(runtime.upkeep, members)
    quota, node = runtime.settings.etcd_quota_mib << 20, runtime.settings.node_id
    name = f"{node} {secrets.token_hex(4)}"
    keeper = Keeper(runtime.upkeep, members, quota, name, defragmenter, runtime.tell_trouble)
    servicer = KVServicer(runtime.pipeline, guard, runtime.keys, watching)
    runtime.serve(add_KVServiceServicer_to_server, servicer, "strongbox.kv.v1.KVService")
    runtime.spawn(keeper.keep(), "keeper of etcd's room")
    purge = Purge(runtime.pipeline, Repository(guard.lookup), runtime.upkeep, defragmenter.run, runtime.clock)
    runtime.duty("purge", purge.work)
    runtime.duty("rewrap-kv", Rewrap(runtime.etcd, runtime.keys, runtime.clock, "kv", KINDS).work)


if __name__ == "__main__":
    run("kv", assemble)
