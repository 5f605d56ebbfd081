"""What replicas say of themselves, and to whom the root key is given."""

from __future__ import annotations

import pytest

from services.seal.cluster_overview import Replica, Snapshot
from services.seal.custody.replica_record import say
from services.seal.peer_unseal import responder
from services.seal.repository import SealState
from strongbox.errors import PermissionDenied, RateLimited, Sealed, StrongBoxError
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.etcd.client import KV
from tests.services.seal.worlds import World, draft

NODE, SESSION = "node-1", keyspace.node("seal", "node-1")


def record(*, holds: bool, lease: int = 7, generation: int = 2, ordinal: str = "1") -> storage.SealReplica:
    return storage.SealReplica(
        node=NODE, ordinal=ordinal, holds=holds, generation=generation if holds else 0, lease=lease
    )


def told(world: World, what: storage.SealReplica) -> storage.SealReplica:
    world.store.run(lambda view: say(view, what))
    return world.replica(NODE)


def unsealed() -> World:
    world = World()
    world.store.seed(keyspace.SEAL_STATE, b"unsealed:2")
    world.store.seed(keyspace.ordinal("1"), NODE.encode())
    return world


def test_a_replica_is_registered_without_a_key() -> None:
    assert told(World(), record(holds=False)) == record(holds=False)


def test_a_holder_says_so_again_under_its_new_session() -> None:
    world = unsealed()
    told(world, record(holds=True))
    assert told(world, record(holds=True, lease=8)).lease == 8


def test_a_successor_does_not_speak_for_a_holder_that_may_still_live() -> None:
    world = unsealed()
    told(world, record(holds=True, lease=7))
    assert told(world, record(holds=False, lease=8)).lease == 7


def test_a_wipe_and_a_seal_are_confirmed() -> None:
    world = unsealed()
    told(world, record(holds=True))
    assert not told(world, record(holds=False)).holds
    told(world, record(holds=True))
    world.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    assert not told(world, record(holds=False, lease=9)).holds


def test_a_key_of_another_generation_is_never_announced() -> None:
    world = unsealed()
    world.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    assert told(world, record(holds=True)) == storage.SealReplica()
    world.store.seed(keyspace.SEAL_STATE, b"unsealed:4")
    assert told(world, record(holds=True)) == storage.SealReplica()


def session_of(world: World) -> KV:
    world.store.seed(SESSION, b"{}")
    return KV(SESSION, b"{}", world.store.revision, world.store.created[SESSION], 8)


def give(world: World, session: KV, node: str = NODE, ordinal: str = "1", generation: int = 2) -> None:
    world.store.run(lambda view: responder.allow(view, node, ordinal, session, generation), draft())


def refused(error: type[StrongBoxError], world: World, session: KV, **changed: object) -> None:
    before = dict(world.store.facts)
    with pytest.raises(error):
        give(world, session, **changed)  # type: ignore[arg-type]
    assert world.store.facts == before


def test_a_registered_replica_without_a_key_gets_it() -> None:
    world = unsealed()
    told(world, record(holds=False))
    give(world, session_of(world))
    assert world.store.value(keyspace.handed("1")) is not None


def test_a_replica_that_restarted_gets_it_once_its_session_is_gone() -> None:
    world = unsealed()
    early = session_of(world)
    told(world, record(holds=True))
    refused(PermissionDenied, world, early)
    world.store.seed(SESSION, None)
    give(world, session_of(world))


def test_it_is_given_once_in_five_seconds() -> None:
    world = unsealed()
    told(world, record(holds=False))
    session = session_of(world)
    give(world, session)
    world.store.now_ms += 4_999
    refused(RateLimited, world, session)
    world.store.now_ms += 1
    give(world, session)


def test_another_ordinal_node_or_session_gets_nothing() -> None:
    world = unsealed()
    told(world, record(holds=False))
    session = session_of(world)
    refused(PermissionDenied, world, session, ordinal="2")
    refused(PermissionDenied, world, session, ordinal="None")
    refused(PermissionDenied, world, session, node="node-2")
    refused(PermissionDenied, world, session._replace(mod_revision=1))


def test_sealed_or_of_another_generation_nothing_is_given() -> None:
    world = unsealed()
    told(world, record(holds=False))
    session = session_of(world)
    refused(Sealed, world, session, generation=4)
    world.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    refused(Sealed, world, session)
    refused(Sealed, world, session, generation=3)


@pytest.mark.parametrize(
    "value",
    [b"", b"sealed", b"sealed:", b"open:1", b"sealed:-1", b"sealed:1x", b"unsealed:1:", b"unsealed:1:2:3"],
)
def test_a_state_that_nobody_wrote_is_an_error(value: bytes) -> None:
    with pytest.raises(ValueError):
        SealState.parse(value)


@pytest.mark.parametrize("state", [SealState(True, 1), SealState(False, 2)])
def test_a_state_is_read_as_it_was_written(state: SealState) -> None:
    assert SealState.parse(state.encode()) == state


@pytest.mark.parametrize(
    ("state", "holds", "sealed"),
    [(None, False, True), (SealState(True, 3), True, True), (SealState(False, 2), False, True),
     (SealState(False, 2), True, False)],
)  # fmt: skip
def test_a_cluster_is_sealed_when_it_says_so_or_nobody_holds_a_key(
    state: SealState | None, holds: bool, sealed: bool
) -> None:
    replicas = (Replica("a", True, holds, True),)
    seen = Snapshot(1, None, state, storage.UnsealAttempt(), replicas, {}, {})
    assert seen.is_sealed is sealed
