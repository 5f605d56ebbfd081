"""Every right that a command or a service needs, whatever its settings say, and none besides."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from services.auth.logins import token_review
from strongbox.authority import Authority
from strongbox.setup import certificates
from strongbox.setup.certificates import ensure_certificates
from strongbox.setup.settings import CertificateSettings
from tests.k8s.manifests import OVERLAYS, Manifest, manifests, named, pods

OWN = ("dev", "prod")  # certificates of our own
# What the cluster role `system:auth-delegator` is, in every Kubernetes: group, resource, verb.
AUTH_DELEGATOR = {
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
}


class Refused(Exception):
    """403."""


class Secrets:
    """A namespace's secrets for an account that has the rights of a Role, as the API server goes by them."""

    def __init__(self, role: Manifest) -> None:
        self._rules = role["rules"]
        self.all: dict[str, dict[str, Any]] = {}

    def read(self, name: str) -> dict[str, Any] | None:
        self._require("get", name)
        return self.all.get(name)

    def put(self, name: str, data: dict[str, bytes], known: dict[str, Any] | None) -> None:
        # Making one is not asked about by name: the name is in the body.
        self._require("create" if known is None else "update", "" if known is None else name)
        self.all[name] = {"metadata": {"name": name}, "data": data}

    def _require(self, verb: str, name: str) -> None:
        for rule in self._rules:
            if "secrets" not in rule["resources"] or "" not in rule["apiGroups"] or verb not in rule["verbs"]:
                continue
            if name in rule.get("resourceNames", [name]):
                return
        raise Refused(f"{verb} secrets {name}")


def bounds(field: str) -> tuple[int, ...]:
    """The least and the most that a setting may be, and what it is by default."""
    known = CertificateSettings.model_fields[field]
    limits = {key: value for one in known.metadata for key, value in vars_of(one).items()}
    return tuple({limits["ge"], limits.get("le", known.default), known.default})


def vars_of(limit: Any) -> dict[str, int]:
    return {key: getattr(limit, key) for key in ("ge", "le") if hasattr(limit, key)}


@pytest.mark.parametrize("overlay", OWN)
def test_the_certificates_account_may_what_it_must_whatever_is_set(overlay: str, monkeypatch: Any) -> None:
    authority = Authority.create("test")
    monkeypatch.setattr(certificates.Authority, "create", lambda _: authority)
    role = named(overlay, "Role", "strongbox-certificates")
    for seals, etcds in product(bounds("seal_replicas"), bounds("etcd_replicas")):
        secrets = Secrets(role)
        settings = CertificateSettings(namespace="strongbox", seal_replicas=seals, etcd_replicas=etcds)
        made = ensure_certificates(secrets, settings)
        assert {*made} == {*secrets.all}
        # All over again, as the CronJob does 30 days before their end.
        soon = settings.model_copy(update={"renew_before_days": 91})
        assert {*ensure_certificates(secrets, soon)} == {*made} - {certificates.AUTHORITY}
        assert ensure_certificates(secrets, settings) == []


def test_an_account_without_the_right_is_refused() -> None:
    """A check that can fail."""
    role: Manifest = {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]}
    with pytest.raises(Refused, match="get secrets strongbox-etcd-tls"):
        ensure_certificates(Secrets(role), CertificateSettings(namespace="strongbox"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_auth_may_ask_for_reviews_as_the_account_that_its_pods_have(overlay: str) -> None:
    binding = named(overlay, "ClusterRoleBinding", "strongbox-auth-reviewer")
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    _, _, group, _, resource = token_review._PATH.split("/")
    assert (group, resource, "create") in AUTH_DELEGATOR
    (subject,) = binding["subjects"]
    (pod,) = [pod for name, pod in pods(overlay) if name == "Deployment/strongbox-auth"]
    assert (subject["namespace"], subject["name"]) == ("strongbox", pod["serviceAccountName"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_has_a_right_but_these_two(overlay: str) -> None:
    bound = {
        (one["kind"], one["roleRef"]["name"], subject["name"])
        for one in manifests(overlay)
        if one["kind"].endswith("RoleBinding")
        for subject in one["subjects"]
    }
    own = {("RoleBinding", "strongbox-certificates", "strongbox-certificates")} if overlay in OWN else set()
    assert bound == {("ClusterRoleBinding", "system:auth-delegator", "strongbox-auth"), *own}
    accounts = {one["metadata"]["name"] for one in manifests(overlay) if one["kind"] == "ServiceAccount"}
    assert accounts == {subject for _, _, subject in bound}
    for name, pod in pods(overlay):
        mine = pod.get("serviceAccountName", "default")
        assert mine in {*accounts, "default"}
        tokens = [
            source
            for volume in pod.get("volumes", ())
            for source in volume.get("projected", {}).get("sources", ())
            if "serviceAccountToken" in source
        ]
        assert bool(tokens) is (mine != "default"), name
