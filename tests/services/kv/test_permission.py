"""Who may do what with a secret, decided before anything's existence."""

from __future__ import annotations

import pytest

from strongbox.errors import (
    PermissionDenied,
    Sealed,
    Unauthenticated,
    VersionDeleted,
)
from strongbox.kv.v1 import kv_service_pb2 as pb
from strongbox.store import keyspace
from tests.services.kv.support import Kv


async def test_403_is_decided_before_existence(kv: Kv) -> None:
    await kv.write("app/there")
    token = kv.token_of(secret__other__ALL="read write delete metadata")
    for path in ("app/there", "app/not-there"):
        for call in (
            kv.read(path, token=token),
            kv.write(path, token=token, cas=5),
            kv.change("Delete", path=path, token=token),
            kv.change("Destroy", 1, path=path, token=token),
        ):
            with pytest.raises(PermissionDenied):
                await call


async def test_destroy_needs_sudo_and_removal_needs_delete_and_settings_need_write(kv: Kv) -> None:
    await kv.write()
    token = kv.token_of(secret__a="delete")
    with pytest.raises(PermissionDenied):
        await kv.change("Destroy", 1, token=token)
    token = kv.token_of(secret__a="metadata")
    with pytest.raises(PermissionDenied):
        await kv.call("UpdateSecretMetadata", settings(max_versions=3), token=token)
    with pytest.raises(PermissionDenied):
        await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"), token=token)
    token = kv.token_of(secret__a="metadata write delete sudo")
    await kv.change("Destroy", 1, token=token)
    await kv.call("UpdateSecretMetadata", settings(max_versions=3), token=token)
    await kv.call("DeleteSecretMetadata", pb.DeleteSecretMetadataRequest(path="a"), token=token)


async def test_whatever_takes_values_away_for_good_needs_what_destroying_needs(kv: Kv) -> None:
    for number in range(3):
        await kv.write("a", str(number))
    small, removal = settings(max_versions=2), pb.DeleteSecretMetadataRequest(path="a")
    for rules in ("metadata write", "metadata write delete", "metadata write sudo"):
        token = kv.token_of(secret__a=rules)
        await kv.call("UpdateSecretMetadata", settings(max_versions=3), token=token)
        for name, request in (("UpdateSecretMetadata", small), ("DeleteSecretMetadata", removal)):
            with pytest.raises(PermissionDenied):
                await kv.call(name, request, token=token)
    assert (await kv.read("a", 1)).value == "0"
    await kv.write("a", "3", token=kv.token_of(secret__a="write"))  # rolls over: that is what it is for
    kv.pipeline.audited.clear()
    mighty = kv.token_of(secret__a="metadata write delete sudo")
    await kv.call("UpdateSecretMetadata", small, token=mighty)
    told = [(one.op, one.version, one.outcome) for one in kv.pipeline.audited]
    assert told == [("UpdateSecretMetadata", 0, "ok"), ("DestroySecretVersions", 2, "ok")]
    assert len(kv.store.keys(keyspace.KV_PURGES)) == 1


def settings(**fields: int) -> pb.UpdateSecretMetadataRequest:
    return pb.UpdateSecretMetadataRequest(path="a", **fields)  # type: ignore[arg-type]


async def test_reading_a_value_and_reading_its_metadata_are_two_capabilities(kv: Kv) -> None:
    await kv.write()
    with pytest.raises(PermissionDenied):
        await kv.read(token=kv.token_of(secret__a="metadata list write"))
    with pytest.raises(PermissionDenied):
        await kv.call(
            "ReadSecretMetadata",
            pb.ReadSecretMetadataRequest(path="a"),
            token=kv.token_of(secret__a="read"),
        )


async def test_refusals_are_audited_with_their_reason_and_version(kv: Kv) -> None:
    await kv.write()
    await kv.change("Delete", 1)
    with pytest.raises(VersionDeleted):
        await kv.read("a", 1)
    last = kv.pipeline.audited[-1]
    assert (last.op, last.path, last.version) == ("ReadSecret", "secret/a", 1)
    assert (last.outcome, last.reason) == ("refused", "DELETED")


async def test_a_revoked_token_reads_nothing_though_the_value_was_unwrapped(kv: Kv) -> None:
    await kv.write()
    token = kv.token_of(secret__a="read")
    kv.pipeline.before = lambda: kv.drop(token)
    with pytest.raises(Unauthenticated):
        await kv.read(token=token)


async def test_sealed_is_what_a_sealed_cluster_says_to_everything(kv: Kv) -> None:
    await kv.write()
    kv.store.seed(keyspace.SEAL_STATE, b"sealed:2")
    kv.key_client.seal()
    for call in (kv.write(), kv.read(), kv.metadata(), kv.change("Delete"), kv.list()):
        with pytest.raises(Sealed):
            await call
