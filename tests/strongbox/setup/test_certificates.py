"""Certificates as Kubernetes secrets: made once, renewed in time, a key never beside another certificate."""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongbox.authority import Authority, Pair
from strongbox.config import ConfigError
from strongbox.rpc.peer_identity import parse_peer
from strongbox.setup.certificates import AUTHORITY, AuthorityLost, ensure_certificates, leaves
from strongbox.setup.kubernetes_api import Api, Conflict
from strongbox.setup.settings import CertificateSettings

SETTINGS = CertificateSettings(namespace="strongbox")
NAMES = {name for name, _ in leaves("strongbox", 3)}


class FakeKubernetes(BaseHTTPRequestHandler):
    """Secrets with resource versions, for one token."""

    secrets: dict[str, dict[str, Any]]
    version = 0

    def do_GET(self) -> None:
        self._reply(200, self.secrets[self._name]) if self._name in self.secrets else self._reply(404, {})

    def do_POST(self) -> None:
        body = self._body()
        name = body["metadata"]["name"]
        self._store(name, body) if name not in self.secrets else self._reply(409, {})

    def do_PUT(self) -> None:
        body, known = self._body(), self.secrets.get(self._name)
        if known is None or known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._reply(409, {})
        else:
            self._store(self._name, body)

    @property
    def _name(self) -> str:
        assert self.path.startswith("/api/v1/namespaces/strongbox/secrets")
        return self.path.rpartition("/")[2]

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _store(self, name: str, body: dict[str, Any]) -> None:
        type(self).version += 1
        assert body["type"] == "kubernetes.io/tls"
        assert {"tls.crt", "tls.key"} <= body["data"].keys()
        body["metadata"]["resourceVersion"] = str(self.version)
        self.secrets[name] = body
        self._reply(200, body)

    def _reply(self, status: int, body: object) -> None:
        if self.headers["authorization"] != "Bearer account-token":
            status, body = 403, {"message": "the body quotes account-token"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def secrets() -> dict[str, dict[str, Any]]:
    return {}


@pytest.fixture
def api(secrets: dict[str, dict[str, Any]], tmp_path: Path) -> Iterator[Api]:
    handler = type("Handler", (FakeKubernetes,), {"secrets": secrets})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("account-token\n")
    yield Api(f"http://127.0.0.1:{server.server_port}", "strongbox", tmp_path, None)
    server.shutdown()
    server.server_close()


def data_of(secret: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def test_every_identity_gets_a_secret_of_its_own_that_verifies(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    made = ensure_certificates(api, SETTINGS)
    assert {*made} == secrets.keys() == NAMES | {AUTHORITY}
    authority = x509.load_pem_x509_certificate(data_of(secrets[AUTHORITY])["tls.crt"])
    for name, leaf in leaves("strongbox", 3):
        data = data_of(secrets[name])
        certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        certificate.verify_directly_issued_by(authority)
        assert data["ca.crt"] == data_of(secrets[AUTHORITY])["tls.crt"]
        assert load_pem_private_key(data["tls.key"], None).public_key() == certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
            f"spiffe://strongbox/{leaf.identity}"
        ]
        dns = names.get_values_for_type(x509.DNSName)
        assert f"{leaf.name}.strongbox.internal" in dns
        assert f"*.strongbox-{leaf.name}.strongbox.svc.cluster.local" in dns
        if leaf.name in ("etcd", "upkeep"):
            continue  # known to etcd alone
        assert parse_peer(f"spiffe://strongbox/{leaf.identity}").service == leaf.name


def test_what_is_good_stays_and_what_runs_out_is_renewed_under_the_same_authority(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    ensure_certificates(api, SETTINGS)
    before = json.dumps(secrets)
    assert ensure_certificates(api, SETTINGS) == []
    assert json.dumps(secrets) == before
    kept = data_of(secrets[AUTHORITY])
    authority = Authority.load(Pair(kept["tls.crt"], kept["tls.key"]))
    leaf = dict(leaves("strongbox", 3))["strongbox-kv-tls"]
    short = authority.issue(leaf, dt.timedelta(days=29))
    old = {"tls.crt": short.certificate, "tls.key": short.key, "ca.crt": kept["tls.crt"]}
    api.put("strongbox-kv-tls", old, api.read("strongbox-kv-tls"))
    assert ensure_certificates(api, SETTINGS) == ["strongbox-kv-tls"]
    assert data_of(secrets["strongbox-kv-tls"])["tls.key"] != short.key


@pytest.mark.parametrize("broken", [{"tls.crt": b"nonsense"}, {"ca.crt": b"another"}, {"tls.key": b""}])
def test_what_makes_no_sense_is_made_anew(
    api: Api, secrets: dict[str, dict[str, Any]], broken: dict[str, bytes]
) -> None:
    ensure_certificates(api, SETTINGS)
    api.put(
        "strongbox-seal-1-tls",
        data_of(secrets["strongbox-seal-1-tls"]) | broken,
        api.read("strongbox-seal-1-tls"),
    )
    assert ensure_certificates(api, SETTINGS) == ["strongbox-seal-1-tls"]


def test_of_two_runs_at_once_one_is_refused(api: Api) -> None:
    ensure_certificates(api, SETTINGS)
    seen = api.read("strongbox-kv-tls")
    assert seen is not None
    api.put("strongbox-kv-tls", seen["data"], seen)
    with pytest.raises(Conflict):
        api.put("strongbox-kv-tls", seen["data"], seen)
    with pytest.raises(Conflict):
        api.put("strongbox-kv-tls", seen["data"], None)


def test_a_refusal_does_not_tell_what_was_sent(api: Api, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    with pytest.raises(OSError, match="HTTP 403") as caught:
        ensure_certificates(api, SETTINGS)
    assert "account-token" not in str(caught.value)


def test_an_authority_that_is_gone_is_not_made_anew_beside_what_it_signed(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    ensure_certificates(api, SETTINGS)
    before = {name: one["data"] for name, one in secrets.items() if name != AUTHORITY}
    del secrets[AUTHORITY]
    with pytest.raises(AuthorityLost, match=AUTHORITY):
        ensure_certificates(api, SETTINGS)
    assert {name: one["data"] for name, one in secrets.items()} == before


def test_a_certificate_whose_names_have_changed_is_renewed_at_once(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    ensure_certificates(api, SETTINGS)
    wider = SETTINGS.model_copy(update={"etcd_replicas": 5})
    assert ensure_certificates(api, wider) == ["strongbox-etcd-tls"]
    assert ensure_certificates(api, wider) == []
    assert "strongbox-etcd-tls" in secrets


def test_labels_and_annotations_of_people_stay_on_a_renewed_secret(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    ensure_certificates(api, SETTINGS)
    metadata = secrets["strongbox-audit-tls"]["metadata"]
    metadata["labels"]["team"] = "a"
    metadata["annotations"] = {"backup": "no"}
    lasting = SETTINGS.model_copy(update={"renew_before_days": 200})
    assert "strongbox-audit-tls" in ensure_certificates(api, lasting)
    after = secrets["strongbox-audit-tls"]["metadata"]
    assert after["labels"] == {"team": "a", "app.kubernetes.io/part-of": "strongbox"}
    assert after["annotations"] == {"backup": "no"}


def test_etcds_certificate_is_the_first_that_is_made(api: Api) -> None:
    assert ensure_certificates(api, SETTINGS)[:2] == [AUTHORITY, "strongbox-etcd-tls"]


def test_a_refusal_names_the_secret_the_reason_and_the_field(
    api: Api, secrets: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "reason": "Invalid",
        "message": "the body quotes a key",
        "details": {"causes": [{"field": "data[tls.crt]", "message": "a key"}]},
    }
    monkeypatch.setattr(FakeKubernetes, "_store", lambda self, name, body: self._reply(422, told))
    with pytest.raises(OSError) as caught:
        ensure_certificates(api, SETTINGS)
    assert f"POST secret {AUTHORITY}: HTTP 422 (Invalid, data[tls.crt])" in str(caught.value)
    assert "quotes" not in str(caught.value)
    assert not secrets


def test_a_conflict_names_the_secret(api: Api, secrets: dict[str, dict[str, Any]]) -> None:
    class Blind(Api):
        def read(self, name: str) -> dict[str, Any] | None:
            return None

    ensure_certificates(api, SETTINGS)
    blind = Blind.__new__(Blind)
    blind.__dict__.update(api.__dict__)
    with pytest.raises(Conflict, match=AUTHORITY):
        ensure_certificates(blind, SETTINGS)


def leaf_and_trusted(data: dict[str, bytes]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    return x509.load_pem_x509_certificate(data["tls.crt"]), x509.load_pem_x509_certificates(data["ca.crt"])


def test_an_authority_is_replaced_in_three_steps_and_everybody_believes_everybody_in_each(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    """As docs/recovering.md says; the nightly run in between takes nothing back."""
    ensure_certificates(api, SETTINGS)
    old, new = data_of(secrets[AUTHORITY]), Authority.create("StrongBox authority").pair
    steps = [
        (old["tls.crt"] + new.certificate, old["tls.key"]),  # both are trusted, the old one signs
        (new.certificate + old["tls.crt"], new.key),  # the new one signs
        (new.certificate, new.key),  # the old one is trusted no more
    ]
    before = {name: data_of(secrets[name]) for name in NAMES}
    for certificate, key in steps:
        api.put(AUTHORITY, {"tls.crt": certificate, "tls.key": key}, api.read(AUTHORITY))
        assert {*ensure_certificates(api, SETTINGS)} == NAMES
        assert ensure_certificates(api, SETTINGS) == []
        after = {name: data_of(secrets[name]) for name in NAMES}
        # While the secrets reach the pods, some have those of the step before.
        several = [*before.values(), *after.values()]
        for mine in several:
            for other in several:
                shown, trusted = leaf_and_trusted(mine)[0], leaf_and_trusted(other)[1]
                assert any(_is_signed_by(shown, one) for one in trusted)
        before = after
    assert all(len(leaf_and_trusted(data)[1]) == 1 for data in before.values())


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):
        return False
    return True


def test_the_gateways_certificate_is_for_the_names_that_clients_outside_know(
    api: Api, secrets: dict[str, dict[str, Any]]
) -> None:
    ensure_certificates(api, SETTINGS)
    told = {
        "STRONGBOX_NAMESPACE": "strongbox",
        "STRONGBOX_GATEWAY_NAMES": "box.example, *.box.example,192.0.2.7,2001:db8::7",
    }
    wider = CertificateSettings.load(told)
    assert ensure_certificates(api, wider) == ["strongbox-gateway-tls"]
    assert ensure_certificates(api, wider) == []
    certificate = x509.load_pem_x509_certificate(data_of(secrets["strongbox-gateway-tls"])["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"box.example", "*.box.example", "strongbox-gateway", "localhost"} <= {
        *names.get_values_for_type(x509.DNSName)
    }
    assert {"192.0.2.7", "2001:db8::7", "127.0.0.1"} == {
        str(one) for one in names.get_values_for_type(x509.IPAddress)
    }


@pytest.mark.parametrize("names", ["https://box.example", "box.example:443", "a..b", "böx.example", "-a"])
def test_what_is_no_name_is_said_before_any_certificate_is_made(names: str) -> None:
    told = {"STRONGBOX_NAMESPACE": "strongbox", "STRONGBOX_GATEWAY_NAMES": names}
    with pytest.raises(ConfigError, match="STRONGBOX_GATEWAY_NAMES"):
        CertificateSettings.load(told)
