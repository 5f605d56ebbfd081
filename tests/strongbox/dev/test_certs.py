"""Certificates of a local cluster: who they name, whose the files are, how they are renewed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from strongbox.dev.certs import Certificates
from strongbox.tls import Identity

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


def test_every_key_is_its_owners_alone_and_no_two_are_the_same(certificates: Certificates) -> None:
    keys = list(certificates.folder.rglob("*.key"))
    assert len(keys) == 3 + 7 * len(NODES)
    numbers = set()
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        private = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        numbers.add(private.private_numbers().private_value)
    assert len(numbers) == len(keys)
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


def test_renewing_replaces_every_key_under_the_same_authority_and_keeps_the_last_issue(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path / "certs")
    certificates.ensure(NODES)
    authority = certificates.authority.read_bytes()
    files = [certificates.operator, certificates.upkeep, *(certificates.of(node, "kv") for node in NODES)]
    for _ in range(3):
        before = [(one.certificate.read_bytes(), one.key.read_bytes()) for one in files]
        certificates.rotate(NODES)
        after = [(one.certificate.read_bytes(), one.key.read_bytes()) for one in files]
        assert not {*before} & {*after}
        assert certificates.authority.read_bytes() == authority
        for one in files:
            Identity(certificates.authority, one.certificate, one.key).current()  # the key fits
            leaf = x509.load_pem_x509_certificate(one.certificate.read_bytes())
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert len(list((certificates.folder / ".issued").iterdir())) == 2


def test_a_key_that_is_not_the_authoritys_signs_nothing(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certs")
    certificates.ensure(NODES)
    (certificates.folder / "authority.key").write_bytes(certificates.operator.key.read_bytes())
    before = certificates.of("node-1", "kv").key.read_bytes()
    with pytest.raises(ValueError, match="authority"):
        certificates.rotate(NODES)
    assert certificates.of("node-1", "kv").key.read_bytes() == before
