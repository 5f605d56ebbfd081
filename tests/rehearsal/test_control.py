"""The stand-in for the API server does what the real one does, where the rehearsal relies on it."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from tests.rehearsal.control import deleting, rules, tokens
from tests.rehearsal.control.merge import json_patch, strategic
from tests.rehearsal.control.podmaking import revision
from tests.rehearsal.control.store import Refusal, Store
from tests.rehearsal.control.tokens import Tokens


def secret(name: str = "one", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "here"}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque"} | more


def account(store: Store, name: str) -> None:
    metadata = {"name": name, "namespace": "here"}
    store.create("serviceaccounts", {"kind": "ServiceAccount", "metadata": metadata})


def test_whoever_puts_over_what_he_has_not_read_is_refused() -> None:
    store = Store()
    first = store.create("secrets", secret())
    store.replace("secrets", first | {"data": {"a": "MQ=="}})
    with pytest.raises(Refusal) as refused:
        store.replace("secrets", first | {"data": {"a": "Mg=="}})
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    with pytest.raises(Refusal, match="already exists"):
        store.create("secrets", secret())


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (secret(data={"a": "no base64!"}), "data[a]"),
        (secret(type="kubernetes.io/tls", data={"tls.crt": "MQ=="}), "data[tls.key]"),
        (secret(data={"a": base64.b64encode(bytes(rules.MAX_SECRET + 1)).decode()}), "data"),
        (secret("Upper"), "metadata.name"),
    ],
)
def test_a_secret_that_is_none_is_refused_with_the_field_at_fault(value: Any, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        rules.check(value, None)
    assert (refused.value.code, refused.value.fields) == (422, (field,))


def test_what_must_not_change_of_a_job_and_a_stateful_set_is_refused() -> None:
    def job(image: str) -> dict[str, Any]:
        return {"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"image": image}}}

    rules.check(job("a"), job("a"))
    with pytest.raises(Refusal, match="immutable"):
        rules.check(job("b"), job("a"))

    def stateful(service: str, image: str) -> dict[str, Any]:
        template = {"metadata": {"labels": {"a": "b"}}, "image": image}
        spec = {"serviceName": service, "template": template, "selector": {"matchLabels": {"a": "b"}}}
        return {"kind": "StatefulSet", "metadata": {"name": "s"}, "spec": spec}

    rules.check(stateful("x", "b"), stateful("x", "a"))
    with pytest.raises(Refusal, match="forbidden"):
        rules.check(stateful("y", "a"), stateful("x", "a"))


def test_lists_with_names_are_merged_and_others_replaced() -> None:
    old = {"containers": [{"name": "a", "image": "1", "args": ["x", "y"]}, {"name": "b"}], "replicas": 3}
    patch = {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [
            {"name": "a", "args": ["z"]}, {"name": "b", "$patch": "delete"}, {"name": "c", "image": "2"}
        ],
        "replicas": None,
    }  # fmt: skip
    assert strategic(old, patch) == {
        "containers": [{"name": "c", "image": "2"}, {"name": "a", "image": "1", "args": ["z"]}]
    }
    assert json_patch({"a": {"b/c": 1}}, [{"op": "replace", "path": "/a/b~1c", "value": 2}]) == {
        "a": {"b/c": 2}
    }


def test_a_template_with_empty_fields_more_is_the_same_revision() -> None:
    assert revision({"a": 1, "b": {}, "c": None}) == revision({"a": 1})
    assert revision({"a": 1}) != revision({"a": 2})


def test_a_token_is_for_its_audiences_and_ends_with_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    known = Tokens(store)
    account(store, "web")
    token = known.issue("here", "web", 600, ["strongbox"])
    assert known.whose(token, ["strongbox", "other"]) == ("system:serviceaccount:here:web", ["strongbox"])
    assert known.whose(token, []) is None, "it is not for the server itself"
    with pytest.raises(Refusal):
        known.caller(f"Bearer {token}")  # so it cannot ask for its own review
    store.remove("serviceaccounts", "here", "web")
    account(store, "web")
    assert known.whose(token, ["strongbox", "other"]) is not None, "remembered for some seconds"
    monkeypatch.setattr(tokens, "CACHED", 0.0)
    assert known.whose(token, ["strongbox", "other"]) is None, "another account of that name"


def test_a_token_is_good_for_some_time_after_its_end_and_no_longer() -> None:
    store = Store()
    known = Tokens(store)
    account(store, "web")
    assert known.whose(known.issue("here", "web", 30 - tokens.LEEWAY, []), []) is not None
    assert known.whose(known.issue("here", "web", -tokens.LEEWAY - 1, []), []) is None
    assert known.whose("a.b.c", []) is None


def test_an_account_may_what_its_role_names_and_nothing_else() -> None:
    store = Store()
    known = Tokens(store)
    account(store, "web")
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["mine"]}
    store.create("roles", {"metadata": {"name": "r", "namespace": "here"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "b", "namespace": "here"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "web"}],
    }
    store.create("rolebindings", binding)
    caller = "system:serviceaccount:here:web"
    known.require(caller, "get", "", "secrets", "here", "mine")
    for verb, name, place in (("get", "other", "here"), ("update", "mine", "here"), ("get", "mine", "there")):
        with pytest.raises(Refusal) as refused:
            known.require(caller, verb, "", "secrets", place, name)
        assert refused.value.code == 403


def test_a_budget_lets_one_go_and_not_another() -> None:
    store = Store()
    labels = {"app": "x"}
    for number in range(3):
        metadata = {"name": f"x-{number}", "namespace": "here", "labels": labels}
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        store.create("pods", {"metadata": metadata, "spec": {"nodeName": "n"}, "status": status})
    place = {"name": "x", "namespace": "here"}
    store.create(
        "statefulsets",
        {"metadata": place, "spec": {"replicas": 3, "template": {"metadata": {"labels": labels}}}},
    )
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    store.create("poddisruptionbudgets", {"metadata": place, "spec": spec})
    deleting.evict(store, "here", "x-0")
    with pytest.raises(Refusal) as refused:
        deleting.evict(store, "here", "x-1")
    assert refused.value.code == 429


def test_a_watch_tells_what_has_changed_since() -> None:
    store = Store()
    before = store.version
    made = store.create("secrets", secret())
    store.replace("secrets", made | {"data": {"a": "MQ=="}})
    store.remove("secrets", "here", "one")
    begun = time.monotonic()
    assert [one.kind for one in store.since(before, "secrets", 0.2)] == ["ADDED", "MODIFIED", "DELETED"]
    assert time.monotonic() - begun < 1.0
