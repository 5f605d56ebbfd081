"""Each RPC of kv over native gRPC, through the gateway: what is promised when all is well."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.support.clients import GrpcClient, RestClient
from tests.support.cluster import Cluster
from tests.support.coverage import Fresh, all_pages, covers
from tests.support.expect import refused

pytestmark = pytest.mark.cluster


@covers("WriteSecret", "ReadSecret")
def test_a_secret_is_written_and_read_in_each_of_its_three_forms(native: GrpcClient, fresh: Fresh) -> None:
    path = fresh("forms")
    forms: list[dict[str, Any]] = [{"value": ""}, {"data": {"a": [1, None, "x"]}}, {"binary": b"\0\xff"}]
    for number, form in enumerate(forms, 1):
        written = native.call("WriteSecret", path=path, cas=number - 1, **form)
        assert (written.path, written.version) == (path, number)
        assert int(written.revision) > 0
        read = native.call("ReadSecret", path=path)
        (name,) = form
        assert read.HasField(name)
        assert sum(read.HasField(other) for other in ("value", "data", "binary")) == 1
        assert (read.version, read.path) == (number, path)
        assert read.created_at == written.created_at
        assert 0 < read.lease.ttl <= 3600
    assert native.call("ReadSecret", path=path, version=1).value == ""


@covers("DeleteSecretVersions", "UndeleteSecretVersions", "DestroySecretVersions")
def test_versions_are_deleted_undeleted_and_destroyed(native: GrpcClient, fresh: Fresh) -> None:
    path = fresh("versions")
    for value in "abc":
        native.call("WriteSecret", path=path, value=value)
    assert list(native.call("DeleteSecretVersions", path=path).versions) == [3]
    refused("NOT_FOUND/DELETED", native.call, "ReadSecret", path=path)
    assert list(native.call("DeleteSecretVersions", path=path, versions=[1, 2]).versions) == [1, 2]
    assert list(native.call("UndeleteSecretVersions", path=path, versions=[3, 1]).versions) in (
        [1, 3],
        [3, 1],
    )
    assert native.call("ReadSecret", path=path).value == "c"
    assert list(native.call("DestroySecretVersions", path=path, versions=[1]).versions) == [1]
    refused("NOT_FOUND/DESTROYED", native.call, "ReadSecret", path=path, version=1)


@covers("ReadSecretMetadata", "UpdateSecretMetadata", "DeleteSecretMetadata")
def test_metadata_are_read_changed_and_removed_with_the_secret(native: GrpcClient, fresh: Fresh) -> None:
    path = fresh("metadata")
    native.call("WriteSecret", path=path, value="a")
    before = native.call("ReadSecretMetadata", path=path)
    assert (before.current_version, before.max_versions, before.cas_required) == (1, 10, False)
    native.call("UpdateSecretMetadata", path=path, max_versions=2, cas_required=True, custom={"owner": "me"})
    refused("INVALID_ARGUMENT", native.call, "WriteSecret", path=path, value="no cas")
    for number in (1, 2):
        native.call("WriteSecret", path=path, value="b", cas=number)
    after = native.call("ReadSecretMetadata", path=path)
    assert (after.max_versions, after.cas_required, dict(after.custom)) == (2, True, {"owner": "me"})
    assert [one.version for one in after.versions] == [2, 3]
    native.call("DeleteSecretMetadata", path=path)
    for name in ("ReadSecret", "ReadSecretMetadata"):
        refused("NOT_FOUND", native.call, name, path=path)


@covers("ListSecrets")
def test_secrets_are_listed_in_pages_by_level_or_in_depth(native: GrpcClient, fresh: Fresh) -> None:
    folder = fresh("list")
    for name in ("a", "b/c", "b/d/e", "f"):
        native.call("WriteSecret", path=f"{folder}/{name}", value="x")
    assert list(native.call("ListSecrets", prefix=folder).names) == ["a", "b/", "f"]
    assert len(all_pages(native, "ListSecrets", "names", prefix=folder, page_size=1)) == 3
    deep = all_pages(native, "ListSecrets", "names", prefix=f"{folder}/", recursive=True, page_size=2)
    assert [name.removeprefix(f"{folder}/") for name in deep] == ["a", "b/c", "b/d/e", "f"]


@covers("BatchReadSecrets")
def test_many_secrets_are_read_at_once_each_with_its_own_answer(
    native: GrpcClient, root: RestClient, cluster: Cluster, fresh: Fresh
) -> None:
    folder = fresh("batch")
    for name in "abc":
        native.call("WriteSecret", path=f"{folder}/{name}", value=f"value {name}")
    native.call("WriteSecret", path=f"{folder}/a", value="newer")
    asked = [
        {"path": f"{folder}/a"}, {"path": f"{folder}/none"}, {"path": f"{folder}/a", "version": 1},
        {"path": f"{folder}//b"}, {"path": f"{folder}/b"},
    ]  # fmt: skip
    answer = root.call("POST", "/v1/secrets-batch", {"requests": asked})
    assert set(answer) == {"revision", "results"}
    kinds = [next(iter(one)) for one in answer["results"]]
    assert kinds == ["secret", "error", "secret", "error", "secret"]
    assert [one["secret"]["value"] for one in answer["results"] if "secret" in one] == [
        "newer", "value a", "value b",
    ]  # fmt: skip
    assert {one["secret"]["revision"] for one in answer["results"] if "secret" in one} == {answer["revision"]}
    missing, wrong = answer["results"][1]["error"], answer["results"][3]["error"]
    assert (missing["code"], missing["details"][0]["reason"]) == (5, "NOT_FOUND")
    assert (wrong["code"], wrong["details"][0]["reason"]) == (3, "INVALID_PATH")
    policy = fresh("batch-policy")
    rules = [{"path": f"secret/{folder}/b", "capabilities": ["read"]}]
    native.call("WritePolicy", name=policy, rules=rules)
    token = native.call("CreateToken", policies=[policy]).token
    with cluster.grpc(token, 2) as own:
        results = own.call("BatchReadSecrets", requests=[{"path": f"{folder}/{n}"} for n in "ab"]).results
    assert (results[0].error.code, results[1].secret.value) == (7, "value b")


@covers("WatchSecrets")
def test_changes_below_a_directory_are_told_as_they_happen_and_can_be_resumed(
    native: GrpcClient, root: RestClient, cluster: Cluster, fresh: Fresh
) -> None:
    folder = fresh("watch")
    first = native.call("WriteSecret", path=f"{folder}/a", value="x").revision
    stream = native.stream("WatchSecrets", prefix=folder, from_revision=first)
    native.call("WriteSecret", path=f"{folder}-beside", value="x")
    native.call("DeleteSecretVersions", path=f"{folder}/a")
    native.call("UndeleteSecretVersions", path=f"{folder}/a", versions=[1])
    native.call("WriteSecret", path=f"{folder}/b/c", value="x")
    native.call("DestroySecretVersions", path=f"{folder}/a", versions=[1])
    native.call("DeleteSecretMetadata", path=f"{folder}/b/c")
    seen = [next(stream) for _ in range(6)]
    stream.cancel()
    assert [(one.path.removeprefix(folder), one.version, one.kind) for one in seen] == [
        ("/a", 1, "WRITTEN"), ("/a", 1, "DELETED"), ("/a", 1, "UNDELETED"), ("/b/c", 1, "WRITTEN"),
        ("/a", 1, "DESTROYED"), ("/b/c", 0, "REMOVED"),
    ]  # fmt: skip
    assert seen[0].revision == first
    lines = root.lines(f"/v1/secrets-watch/{folder}", from_revision=seen[2].revision)
    told = next(lines)
    assert set(told) == {"path", "version", "kind", "revision"}
    assert told in (
        {"path": f"{folder}/a", "version": 1, "kind": "UNDELETED", "revision": seen[2].revision},
        {"path": "", "version": 0, "kind": "RESYNC", "revision": told["revision"]},  # it was purged meanwhile
    )
    lines.close()


def test_a_watch_ends_with_its_token_before_the_next_event_is_told(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    folder = fresh("watched")
    policy = fresh("watcher")
    rules = [{"path": f"secret/{folder}/*", "capabilities": ["list", "read"]},
             {"path": f"secret/{folder}/hidden", "capabilities": ["list", "deny"]}]  # fmt: skip
    native.call("WritePolicy", name=policy, rules=rules)
    made = native.call("CreateToken", policies=[policy])
    first = native.call("WriteSecret", path=f"{folder}/hidden", value="x").revision
    native.call("WriteSecret", path=f"{folder}/a", value="x")
    with cluster.grpc(made.token, 2) as own:
        stream = own.stream("WatchSecrets", prefix=folder, from_revision=first)
        assert next(stream).path == f"{folder}/a"
        native.call("RevokeToken", accessor=made.accessor)
        native.call("WriteSecret", path=f"{folder}/a", value="y")
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
