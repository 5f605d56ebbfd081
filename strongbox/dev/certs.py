"""Certificates of a local cluster: one authority, and a certificate for each process, made together.

The authority's key lives in memory while they are made and is never written: nothing can be signed later. If
one is missing or about to run out all are made anew. P-256; files 0600 in folders 0700.

    CN=<service>, SAN spiffe://strongbox/<service> (seal: …/seal/<ordinal>), <service>.strongbox.internal,
    localhost, 127.0.0.1; good for servers and clients alike. `gateway` and `operator` likewise.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=365)
_SPARE = dt.timedelta(days=7)
_NODE_NAMES = ("seal", "kv", "auth", "lease", "audit", "gateway", "etcd")


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of one identity."""

    certificate: Path
    key: Path


class Certificates:
    """A cluster's certificates: `ca.pem`, `operator.pem`, `node-1/kv.pem` …, and their keys beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"

    def of(self, node: str, name: str) -> Certificate:
        """Those of one process of one node."""
        return self._named(f"{node}/{name}")

    @property
    def operator(self) -> Certificate:
        """Those of the people who look after the cluster (etcd maintenance, tests)."""
        return self._named("operator")

    def ensure(self, nodes: list[str], addresses: Mapping[str, Sequence[str]] | None = None) -> None:
        """Make all of them, unless all are there and good for another week.

        `addresses`: IP addresses of a node that its certificates name beside the loopback one.
        """
        wanted = [self.operator, *(self.of(node, name) for node in nodes for name in _NODE_NAMES)]
        if not all(_is_good(each) for each in wanted) or not self.authority.exists():
            self._make(nodes, addresses or {})

    def _named(self, stem: str) -> Certificate:
        return Certificate(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")

    def _make(self, nodes: list[str], addresses: Mapping[str, Sequence[str]]) -> None:
        issuer = _Authority()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self.authority, issuer.certificate.public_bytes(serialization.Encoding.PEM))
        self._issue(issuer, self.operator, "operator", "operator")
        for ordinal, node, name in _leaves(nodes):
            identity = f"seal/{ordinal}" if name == "seal" else name
            self._issue(issuer, self.of(node, name), name, identity, addresses.get(node, ()))

    def _issue(
        self, issuer: _Authority, files: Certificate, name: str, identity: str, addresses: Sequence[str] = ()
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        files.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(files.key, _pem(key))
        signed = issuer.sign(key.public_key(), name, identity, addresses)
        _write(files.certificate, signed.public_bytes(serialization.Encoding.PEM))


class _Authority:
    """A key that is never written, and its certificate."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name("StrongBox development CA")
        self.certificate = (
            self._dated(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def sign(
        self, public: ec.EllipticCurvePublicKey, name: str, identity: str, addresses: Sequence[str]
    ) -> x509.Certificate:
        """A certificate for `spiffe://strongbox/<identity>`."""
        every = dict.fromkeys(("127.0.0.1", *addresses))
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(f"spiffe://strongbox/{identity}"),
                x509.DNSName(f"{name}.strongbox.internal"),
                x509.DNSName("localhost"),
                *(x509.IPAddress(ipaddress.IPv4Address(address)) for address in every),
            ]
        )
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            self._dated(_common_name(name), public)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(both, critical=False)
            .add_extension(names, critical=False)
            .add_extension(key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _dated(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))  # clocks differ
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


def _leaves(nodes: list[str]) -> Iterator[tuple[int, str, str]]:
    for ordinal, node in enumerate(nodes, 1):
        for name in _NODE_NAMES:
            yield ordinal, node, name


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Owner only from the first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _is_good(files: Certificate) -> bool:
    try:
        found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError):
        return False
    return files.key.exists() and found.not_valid_after_utc > dt.datetime.now(dt.UTC) + _SPARE
