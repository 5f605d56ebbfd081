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
    for name in ("UpdateSecretMetadata", "DeleteSecretMetadata"):
        with pytest.raises(PermissionDenied):
            await kv.call(name, getattr(pb, f"{name}Request")(path="a"), token=token)
    token = kv.token_of(secret__a="metadata write delete sudo")
    await kv.change("Destroy", 1, token=token)
    for name in ("UpdateSecretMetadata", "DeleteSecretMetadata"):
        await kv.call(name, getattr(pb, f"{name}Request")(path="a"), token=token)


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
