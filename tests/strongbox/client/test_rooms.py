"""Secrets, tokens, policies, leases and the log through the client."""

from __future__ import annotations

from typing import Any

import pytest

from strongbox.client import Secret, StrongBox
from strongbox.client.audit import LogForged
from strongbox.crypto.ed25519 import SigningKey
from strongbox.errors import (
    InvalidInput,
    InvalidPath,
    NotFound,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
    WrongShare,
)
from tests.support.fake_strongbox import KEY_FILE, SHARES, TOKEN, FakeLog, World

DATA = {"user": "a", "port": 5432, "ratio": 0.5, "on": True, "none": None, "list": [1, "x", {"deep": []}]}


@pytest.mark.parametrize("value", ["s3cr3t", "", "späße\n", b"\x00\xff", b"", DATA, {}])
def test_a_value_comes_back_as_it_was_put(box: StrongBox, value: Any) -> None:
    assert box.kv.put("app/db", value).version == 1
    secret = box.kv.get("app/db")
    assert secret.value == value
    assert type(secret.value) is type(value)


def test_whole_numbers_in_data_come_back_as_integers(box: StrongBox) -> None:
    box.kv.put("a", {"port": 5432})
    value = box.kv.get("a").value
    assert isinstance(value, dict)
    assert type(value["port"]) is int


def test_a_secret_is_never_printed_by_its_repr(box: StrongBox) -> None:
    box.kv.put("a", "hunter2")
    assert "hunter2" not in repr(box.kv.get("a"))


def test_versions_are_read_by_number(box: StrongBox) -> None:
    box.kv.put("a", "1")
    box.kv.put("a", "2", cas=1)
    assert (box.kv.get("a", 1).value, box.kv.get("a").value) == ("1", "2")
    with pytest.raises(VersionMismatch):
        box.kv.put("a", "3", cas=0)
    with pytest.raises(NotFound):
        box.kv.get("a", 3)


def test_a_cas_of_zero_is_sent_and_no_cas_is_not(world: World, box: StrongBox) -> None:
    box.kv.put("a", "1")
    assert not world.last().HasField("cas")
    box.kv.put("b", "1", cas=0)
    assert world.last().HasField("cas")


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/../b", "a/", "a%2fb", "a\nb", "x" * 513])
def test_a_path_that_is_not_canonical_is_refused_before_anything_is_sent(
    world: World, box: StrongBox, path: str
) -> None:
    for call in (box.kv.get, box.kv.metadata, box.kv.delete, box.kv.delete_metadata, box.kv.update_metadata):
        with pytest.raises(InvalidPath):
            call(path)
    with pytest.raises(InvalidPath):
        box.kv.put(path, "x")
    assert world.asked == []


@pytest.mark.parametrize(
    "data", [{"n": 2**53}, {"n": [-(2**60)]}, {"x": object()}, {"x": {1, 2}}, {1: "x"}, {"x": float("nan")}]
)
def test_data_that_would_not_come_back_as_it_went_in_is_refused(
    world: World, box: StrongBox, data: Any
) -> None:
    with pytest.raises(InvalidInput):
        box.kv.put("a", data)
    assert world.asked == []


def test_data_nested_too_deep_is_refused(box: StrongBox) -> None:
    data: dict[str, Any] = {}
    for _ in range(40):
        data = {"in": data}
    with pytest.raises(InvalidInput, match="deep"):
        box.kv.put("a", data)


def test_a_value_of_another_type_is_refused(box: StrongBox) -> None:
    with pytest.raises(InvalidInput):
        box.kv.put("a", 5)  # type: ignore[arg-type]


def test_listing_follows_the_pages_to_the_end(box: StrongBox) -> None:
    for name in "abcde":
        box.kv.put(name, "x")
    assert list(box.kv.list()) == list("abcde")


def test_versions_are_deleted_undeleted_and_destroyed_by_number(world: World, box: StrongBox) -> None:
    assert list(box.kv.delete("a", [2]).versions) == [2]
    assert list(box.kv.undelete("a", [2]).versions) == [2]
    assert list(box.kv.destroy("a", [1, 2]).versions) == [1, 2]
    assert [name for name, _ in world.asked] == [
        "DeleteSecretVersions", "UndeleteSecretVersions", "DestroySecretVersions",
    ]  # fmt: skip


def test_only_the_metadata_that_is_given_is_changed(world: World, box: StrongBox) -> None:
    assert box.kv.metadata("a").custom == {"team": "a"}
    box.kv.update_metadata("a", cas_required=False)
    assert world.last().HasField("cas_required")
    assert not world.last().HasField("max_versions")
    box.kv.delete_metadata("a")


def test_the_cluster_is_initialised_unsealed_and_sealed(world: World, box: StrongBox) -> None:
    made = box.seal.init(3, 2)
    assert (list(made.shares), made.root_token) == (list(SHARES), TOKEN)
    assert box.seal.seal().unconfirmed == ["node-3"]
    assert box.seal.status().sealed
    with pytest.raises(WrongShare):
        box.seal.unseal("bm9uZQ")
    assert box.seal.unseal(SHARES[0]).progress == "1/2"
    assert not box.seal.unseal(SHARES[2]).sealed
    assert box.seal.health().ready
    assert box.seal.ready().ready
    with pytest.raises(InvalidInput):
        box.seal.unseal("")


def test_durations_go_as_seconds_or_as_text(world: World, box: StrongBox) -> None:
    made = box.tokens.create(["app"], ttl=90, max_ttl="1h", display_name="ci")
    asked = world.last()
    assert (asked.ttl.number_value, asked.max_ttl.string_value) == (90, "1h")
    assert not asked.HasField("period")
    assert (made.token, list(made.policies)) == ("sbt_child", ["app"])


def test_tokens_are_looked_up_renewed_and_revoked_by_accessor_or_as_ones_own(
    world: World, box: StrongBox
) -> None:
    accessor = box.tokens.create().accessor
    assert box.tokens.lookup(accessor).accessor == accessor
    assert box.tokens.lookup_self().accessor == "own"
    assert box.tokens.renew(accessor, "1h").ttl == box.tokens.renew_self().ttl == 60
    box.tokens.revoke(accessor)
    box.tokens.revoke_self()
    assert world.revoked == [accessor, "own"]
    for wrong in ("", "self"):
        with pytest.raises(InvalidInput):
            box.tokens.revoke(wrong)


def test_tokens_are_listed_to_the_end(box: StrongBox) -> None:
    made = [box.tokens.create().accessor for _ in range(5)]
    assert list(box.tokens.list()) == made


def test_policies_are_written_read_listed_and_deleted(box: StrongBox) -> None:
    for name in ("a", "b", "c"):
        box.policies.write(name, [{"path": "secret/app/*", "capabilities": ["read"]}])
    assert box.policies.read("a").rules[0].path == "secret/app/*"
    assert list(box.policies.list()) == ["a", "b", "c"]
    box.policies.delete("a")
    with pytest.raises(NotFound):
        box.policies.read("a")


@pytest.mark.parametrize(
    "rule",
    [{"path": "secret/*"}, {"path": "x", "capabilites": ["read"]}, {"path": "x", "capabilities": "read"},
     {"path": 1, "capabilities": []}, {"path": "x", "capabilities": [1]}, "x",
     {"path": "x", "capabilities": None},
     {"path": "x", "capabilities": ["read"], "more": 1}],
)  # fmt: skip
def test_a_misspelt_rule_is_refused_before_anything_is_sent(world: World, box: StrongBox, rule: Any) -> None:
    with pytest.raises(InvalidInput):
        box.policies.write("a", [rule])
    assert world.asked == []


def test_a_policys_name_is_checked(box: StrongBox) -> None:
    with pytest.raises(InvalidInput):
        box.policies.read("a/b")


def test_leases_are_read_listed_and_revoked(box: StrongBox) -> None:
    assert box.leases.get("l-1").state == "ACTIVE"
    assert [lease.id for lease in box.leases.list(path="secret/a")] == ["l-1", "l-2", "l-3"]
    assert box.leases.revoke("l-1").state == "REVOKED"
    with pytest.raises(InvalidInput):
        box.leases.get("a/b")


def test_the_log_is_read_to_its_end_over_all_pages(world: World, box: StrongBox) -> None:
    world.entries = 2500
    assert [entry.index for entry in box.audit.entries(10)] == list(range(10, 2500))
    assert box.audit.page(limit=3).head.index == 2499
    assert box.audit.export_key() == KEY_FILE


def test_many_secrets_are_got_at_once_each_or_its_error(box: StrongBox) -> None:
    box.kv.put("a", "1")
    box.kv.put("b", "2")
    first, missing, second = box.kv.get_many(["a", "none", ("b", 1)])
    assert isinstance(first, Secret)
    assert isinstance(second, Secret)
    assert (first.value, second.value) == ("1", "2")
    assert isinstance(missing, NotFound)
    assert missing.metadata["request_id"]


def test_a_watch_goes_on_over_broken_streams_and_neither_loses_nor_repeats(
    box: StrongBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongbox.client.kv._REOPEN", 0.0)
    told: list[str] = []

    def note_all() -> None:
        for change in box.kv.watch():
            told.append(change.path)

    with pytest.raises(Unauthenticated):
        note_all()
    assert told == list("abcde")


def test_a_watch_that_is_refused_at_once_says_why(world: World, box: StrongBox) -> None:
    world.failure = Unavailable()
    with pytest.raises(Unavailable):
        next(box.kv.watch("a"))
    with pytest.raises(InvalidPath):
        next(box.kv.watch("a//b"))


def test_the_log_is_followed_over_broken_connections_without_a_gap(box: StrongBox) -> None:
    followed = box.audit.follow(0)
    assert [next(followed).index for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(Unauthenticated):
        next(followed)


def test_checkpoints_are_verified_with_the_key_that_was_kept(world: World, box: StrongBox) -> None:
    world.log.grow(5)
    key = box.audit.public_key()
    old = box.audit.checkpoint(key)
    world.log.grow(12)
    new = box.audit.checkpoint(key, since=old.note)
    assert (old.size, new.size) == (5, 12)
    assert [box.audit.prove(index, key).size for index in range(12)] == [12] * 12
    assert box.audit.rotate_key() == 2
    with pytest.raises(InvalidInput):
        box.audit.checkpoint("not a key")


def test_a_log_that_was_written_anew_or_signed_by_another_is_not_believed(
    world: World, box: StrongBox
) -> None:
    world.log.grow(5)
    key, old = box.audit.public_key(), box.audit.checkpoint().note
    world.log = FakeLog()
    world.log.frontier.add(b"x" * 32)
    world.log.row.append(b"x" * 32)
    world.log.grow(12)
    with pytest.raises(LogForged, match="anew"):
        box.audit.checkpoint(key, since=old)
    world.log = FakeLog(3)
    with pytest.raises(LogForged, match="shorter"):
        box.audit.checkpoint(key, since=old)
    world.log.key = SigningKey(b"x" * 32)
    with pytest.raises(LogForged, match="key"):
        box.audit.checkpoint(key)
    with pytest.raises(LogForged, match="key"):
        box.audit.prove(0, key)
