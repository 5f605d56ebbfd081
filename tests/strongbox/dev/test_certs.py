"""Certificates of a local cluster: who they name, and that nothing more can be signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongbox.dev.certs import Certificates

NODES = ["node-1", "node-2"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("cluster") / "certs")
    made.ensure(NODES)
    return made


def names_in(path: Path) -> x509.SubjectAlternativeName:
    leaf = x509.load_pem_x509_certificate(path.read_bytes())
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.mark.parametrize(
    ("node", "name", "identity"),
    [
        ("node-1", "kv", "spiffe://strongbox/kv"),
        ("node-2", "seal", "spiffe://strongbox/seal/2"),
        ("node-2", "gateway", "spiffe://strongbox/gateway"),
    ],
)
def test_a_process_is_named_by_its_certificate(
    certificates: Certificates, node: str, name: str, identity: str
) -> None:
    names = names_in(certificates.of(node, name).certificate)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [identity]
    assert names.get_values_for_type(x509.DNSName) == [f"{name}.strongbox.internal", "localhost"]


def test_the_authoritys_key_is_on_no_disk_and_keys_are_their_owners(certificates: Certificates) -> None:
    authority = x509.load_pem_x509_certificate(certificates.authority.read_bytes())
    keys = list(certificates.folder.rglob("*.key"))
    assert len(keys) == 1 + 7 * len(NODES)
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert load_pem_private_key(path.read_bytes(), None).public_key() != authority.public_key()
    for path in certificates.folder.rglob("*.pem"):
        assert b"PRIVATE" not in path.read_bytes()


def test_they_are_kept_and_all_made_anew_when_one_is_missing(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certs")
    certificates.ensure(NODES)
    before = certificates.authority.read_bytes()
    certificates.ensure(NODES)
    assert certificates.authority.read_bytes() == before
    certificates.of("node-2", "kv").key.unlink()
    certificates.ensure(NODES)
    assert certificates.authority.read_bytes() != before
