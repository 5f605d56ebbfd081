"""S2: secrets and their versions."""

from __future__ import annotations

from tests.scenarios.world import World
from tests.support.clients import RestClient
from tests.support.expect import eventually, refused
from tests.support.store import Etcd

_VALUES = ("the first value, long enough to search for", "the second value, just as long")
_PURGE_SECONDS = 75.0  # the promise is 60 s; the search takes a moment


def versions(world: World) -> None:
    """Two versions through two nodes and both protocols; history; cas."""
    world.unsealed()
    path = "s2/versions"
    with world.rest(world.root_token) as rest, world.grpc(world.root_token, node=1) as native:
        assert rest.write(path, "one", cas=0)["version"] == 1
        assert native.call("ReadSecret", path=path).value == "one"
        assert native.call("WriteSecret", path=path, value="two", cas=1).version == 2
        assert rest.read(path)["value"] == "two"
        assert [rest.read(path, version=n)["value"] for n in (1, 2)] == ["one", "two"]
        assert native.call("ReadSecret", path=path, version=1).value == "one"
        for cas in (0, 1, 3):
            refusal = refused("ABORTED/VERSION_MISMATCH", rest.write, path, "lost", cas=cas)
            assert refusal.http == 409
        refused("ABORTED", native.call, "WriteSecret", path=path, value="lost", cas=1)
        refused("NOT_FOUND", rest.read, path, version=3)
        history = rest.call("GET", f"/v1/secrets-metadata/{path}")
        assert history["current_version"] == 2
        assert sorted(one["version"] for one in history["versions"]) == [1, 2]
        assert all(one["created_at"] for one in history["versions"])


def gone_for_good(world: World) -> str:
    """Deleted comes back, destroyed never does, and etcd forgets it."""
    cluster = world.unsealed()
    path = "s2/destroyed"
    with world.rest(world.root_token) as rest, world.grpc(world.root_token, node=2) as native:
        for value in _VALUES:
            rest.write(path, value)
        rest.call("DELETE", f"/v1/secrets/{path}")
        refused("NOT_FOUND/DELETED", rest.read, path)
        assert rest.read(path, version=1)["value"] == _VALUES[0]
        native.call("UndeleteSecretVersions", path=path, versions=[2])
        assert rest.read(path)["value"] == _VALUES[1]
        with Etcd(cluster) as etcd:
            envelopes = etcd.ciphertexts(path)
            assert len(envelopes) == 6, "two versions, each with a ciphertext, a tag and a wrapped key"
            rest.call("POST", f"/v1/secrets-destroy/{path}", {"versions": [1, 2]})
            refused("NOT_FOUND/DESTROYED", native.call, "ReadSecret", path=path, version=2)
            refused("NOT_FOUND", native.call, "UndeleteSecretVersions", path=path, versions=[1])
            refused("NOT_FOUND/DESTROYED", rest.read, path, version=1)
            if world.short:  # the minute is the full form's
                return "without the purge, which takes a minute"
            eventually(_PURGE_SECONDS, _require_purged, rest, path)
            assert etcd.revisions_holding(envelopes) == []
        refused("NOT_FOUND/DESTROYED", rest.read, path, version=2)
    return ""


def _require_purged(rest: RestClient, path: str) -> None:
    found = rest.call("GET", f"/v1/secrets-metadata/{path}")["versions"]
    assert all(one.get("destroyed_at") and one.get("purged_at") for one in found), "not purged yet"
