"""Secrets through the servicer, over a fake store: values, refusals, repetitions, leases."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2

from services.kv import repository
from strongbox.errors import (
    InvalidInput,
    InvalidPath,
    NotFound,
    VersionDeleted,
    VersionDestroyed,
    VersionMismatch,
)
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.storage.v1 import kv_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.kv.support import Kv


def etcd_holds(kv: Kv, text: bytes) -> bool:
    return any(text in key + (fact.value or b"") for key, fact in kv.store.facts.items())


async def test_what_was_written_is_read_and_is_nowhere_in_clear(kv: Kv) -> None:
    made = await kv.write("app/db", "hunter2")
    assert (made.version, made.revision) == (1, str(kv.store.revision))
    read = await kv.read("app/db")
    assert (read.value, read.version, read.path) == ("hunter2", 1, "app/db")
    assert read.created_at == made.created_at
    assert not etcd_holds(kv, b"hunter2")


async def test_both_versions_can_be_read_and_history_shows_both(kv: Kv) -> None:
    await kv.write("a", "one")
    await kv.write("a", "two")
    assert (await kv.read("a")).value == "two"
    assert (await kv.read("a", 1)).value == "one"
    assert (await kv.read("a", 2)).value == "two"
    assert [version.version for version in (await kv.metadata()).versions] == [1, 2]


async def test_versions_beyond_max_versions_are_removed_with_their_envelopes(kv: Kv) -> None:
    for number in range(12):
        await kv.write("a", str(number))
    assert len(kv.store.keys(keyspace.KV_ENVELOPES)) == 10
    with pytest.raises(NotFound):
        await kv.read("a", 2)
    await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", max_versions=1))
    assert kv.store.keys(keyspace.KV_ENVELOPES) == [keyspace.envelope("a", 12)]
    assert (await kv.read("a")).value == "11"
    await kv.write("a", "last")
    assert (await kv.read("a")).value == "last"
    assert kv.store.keys(keyspace.KV_ENVELOPES) == [keyspace.envelope("a", 13)]


async def test_a_cas_conflict_is_refused_and_told(kv: Kv) -> None:
    await kv.write(cas=0)
    with pytest.raises(VersionMismatch) as refused:
        await kv.write(cas=0)
    assert refused.value.metadata["current_version"] == "1"
    assert (await kv.write(cas=1)).version == 2


@pytest.mark.parametrize("cas", [-1, -(2**31)])
async def test_a_negative_cas_is_refused(kv: Kv, cas: int) -> None:
    with pytest.raises(InvalidInput):
        await kv.write(cas=cas)


async def test_soft_delete_undelete_destroy(kv: Kv) -> None:
    await kv.write("a", "one")
    await kv.write("a", "two")
    assert list((await kv.change("Delete")).versions) == [2]
    with pytest.raises(VersionDeleted):
        await kv.read()
    assert (await kv.read("a", 1)).value == "one"
    await kv.change("Undelete", 2)
    assert (await kv.read()).value == "two"
    await kv.change("Destroy", 1, 2)
    for number in (1, 2):
        with pytest.raises(VersionDestroyed):
            await kv.read("a", number)
    assert kv.store.keys(keyspace.KV_ENVELOPES) == []
    with pytest.raises(VersionDestroyed):
        await kv.change("Undelete", 1)


async def test_a_destroyed_newest_version_is_followed_by_the_next_number(kv: Kv) -> None:
    await kv.write()
    await kv.change("Destroy", 1)
    assert (await kv.write("a", "next")).version == 2
    assert (await kv.read()).value == "next"
    assert kv.store.keys(keyspace.KV_ENVELOPES) == [keyspace.envelope("a", 2)]


async def test_a_version_whose_ttl_is_over_is_not_found(kv: Kv) -> None:
    await kv.write("a", "old")
    await kv.write("a", "short", ttl=struct_pb2.Value(string_value="90s"))
    assert (await kv.read()).value == "short"
    kv.store.now_ms += 90_000
    with pytest.raises(NotFound):
        await kv.read()
    assert (await kv.read("a", 1)).value == "old"


async def test_a_read_holds_only_before_the_versions_expiry(kv: Kv) -> None:
    await kv.write("a", "short", ttl=struct_pb2.Value(number_value=5))
    kv.store.seed(keyspace.CLUSTER_TIME, b"%020d" % (kv.store.now_ms + 5000))
    with pytest.raises(AssertionError, match="cluster/time"):
        await kv.read()


@pytest.mark.parametrize("ttl", [{"number_value": 0}, {"number_value": 1.5}, {"string_value": "soon"}])
async def test_a_ttl_that_is_none_is_refused(kv: Kv, ttl: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await kv.write(ttl=struct_pb2.Value(**ttl))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "a//b", "a/../b", "a/", "a%2fb", "/a", "a\0b", "e\u0301"])
async def test_a_path_that_is_not_canonical_is_refused_everywhere(kv: Kv, path: str) -> None:
    for call in (
        kv.write(path),
        kv.read(path),
        kv.metadata(path),
        kv.change("Delete", path=path),
        kv.change("Destroy", 1, path=path),
        kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path=path)),
    ):
        with pytest.raises(InvalidPath):
            await call


@pytest.mark.parametrize("version", [0, -1])
async def test_versions_are_counted_from_one(kv: Kv, version: int) -> None:
    await kv.write()
    for call in (kv.read("a", version), kv.change("Delete", version), kv.change("Undelete", 1, version)):
        with pytest.raises(InvalidInput):
            await call


async def test_undelete_and_destroy_name_their_versions(kv: Kv) -> None:
    await kv.write()
    for what in ("Undelete", "Destroy"):
        with pytest.raises(InvalidInput):
            await kv.change(what)


async def test_what_never_was_is_not_found(kv: Kv) -> None:
    for call in (kv.read("b"), kv.metadata("b"), kv.change("Delete", path="b")):
        with pytest.raises(NotFound):
            await call
    await kv.write()
    for call in (kv.read("a", 2), kv.change("Delete", 2), kv.change("Destroy", 1, 2)):
        with pytest.raises(NotFound):
            await call
    assert (await kv.read()).value == "v"


async def test_removal_takes_everything_and_asks_for_a_purge(kv: Kv) -> None:
    for number in range(3):
        await kv.write("a", str(number))
    await kv.write("a/b", "other")
    await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"))
    assert kv.store.keys(keyspace.head("a")) == [keyspace.head("a/b")]
    assert kv.store.keys(keyspace.KV_ENVELOPES) == [keyspace.envelope("a/b", 1)]
    tomb = storage.PurgeRecord.FromString(kv.store.value(repository.tomb_key("a")) or b"")
    assert list(tomb.versions) == [1, 2, 3]


async def test_removing_what_is_not_there_succeeds(kv: Kv) -> None:
    await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"))
    assert kv.store.keys(keyspace.KV_PURGES) == []


async def test_destroying_asks_for_a_purge_once(kv: Kv) -> None:
    await kv.write()
    await kv.change("Destroy", 1)
    (key,) = kv.store.keys(keyspace.KV_PURGES)
    at = kv.store.facts[key].mod_revision
    await kv.change("Destroy", 1)
    assert kv.store.facts[key].mod_revision == at


async def test_settings_are_validated_changed_and_shown(kv: Kv) -> None:
    await kv.write()
    request = pb.UpdateSecretMetadataRequest(
        path="a", max_versions=3, cas_required=True, custom={"owner": "me"}
    )
    await kv.call("UpdateSecretMetadata", request)
    told = await kv.metadata()
    assert (told.max_versions, told.cas_required, dict(told.custom)) == (3, True, {"owner": "me"})
    with pytest.raises(InvalidInput):
        await kv.write()


async def test_custom_metadata_can_be_emptied_and_an_empty_map_alone_is_refused(kv: Kv) -> None:
    await kv.write()
    custom = pb.UpdateSecretMetadataRequest(path="a", custom={"owner": "me"})
    await kv.call("UpdateSecretMetadata", custom)
    with pytest.raises(InvalidInput, match="clear_custom"):
        await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", custom={}))
    assert dict((await kv.metadata()).custom) == {"owner": "me"}
    await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", clear_custom=True))
    assert not (await kv.metadata()).custom
    custom.clear_custom = True
    with pytest.raises(InvalidInput):
        await kv.call("UpdateSecretMetadata", custom)


async def test_an_empty_key_is_not_said_to_be_too_large(kv: Kv) -> None:
    await kv.write()
    with pytest.raises(InvalidInput) as refused:
        await kv.call("UpdateSecretMetadata", pb.UpdateSecretMetadataRequest(path="a", custom={"": "x"}))
    assert refused.value.reason == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "bad",
    [
        pb.UpdateSecretMetadataRequest(path="a", max_versions=0),
        pb.UpdateSecretMetadataRequest(path="a", max_versions=101),
        pb.UpdateSecretMetadataRequest(path="a", custom={"": "x"}),
        pb.UpdateSecretMetadataRequest(path="a", custom={"a": "x" * 513}),
        pb.UpdateSecretMetadataRequest(path="a", custom={str(n): "" for n in range(65)}),
    ],
)
async def test_settings_beyond_their_limits_are_refused(kv: Kv, bad: pb.UpdateSecretMetadataRequest) -> None:
    await kv.write()
    with pytest.raises(InvalidInput):
        await kv.call("UpdateSecretMetadata", bad)


async def test_metadata_shows_every_moment_of_a_version(kv: Kv) -> None:
    await kv.write(ttl=struct_pb2.Value(number_value=60))
    await kv.change("Delete", 1)
    await kv.change("Destroy", 1)
    (version,) = (await kv.metadata()).versions
    assert version.HasField("deleted_at")
    assert version.HasField("destroyed_at")
    assert not version.HasField("purged_at")
    assert version.expires_at.seconds == version.created_at.seconds + 60
