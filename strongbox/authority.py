"""A cluster's own certificate authority and what it signs: P-256, SHA-256, names as in docs/adr/0005.

    CN=<name>, SAN spiffe://strongbox/<identity>, <name>.strongbox.internal, and where it can be reached;
    good for servers and clients alike. Etcd takes the common name for its user.

All trust inside a cluster rests on the authority's key: whoever has it can pose as any service. It is kept
(by strongbox/dev/certs.py in a file, in Kubernetes in a secret that only the account of strongbox.setup may
read), so that certificates can be renewed without replacing what everybody trusts.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = dt.timedelta(days=3650)
_CLOCKS_DIFFER = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Whom a certificate is for. `identity`: what follows `spiffe://strongbox/`; `hosts`: more DNS names."""

    name: str
    identity: str
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ("127.0.0.1",)

    @property
    def names(self) -> x509.SubjectAlternativeName:
        """Everything that the certificate is good for."""
        hosts = (f"{self.name}.strongbox.internal", "localhost", *self.hosts)
        return x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(f"spiffe://strongbox/{self.identity}"),
                *(x509.DNSName(host) for host in hosts),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in self.addresses),
            ]
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM of a certificate and its private key."""

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """Signs certificates; made new (`create`), or from a pair that was kept (`load`)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate = key, certificate

    @classmethod
    def create(cls, name: str) -> Authority:
        """A new authority with the common name `name`, good for `AUTHORITY_LIFETIME`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(name)
        built = (
            _dated(subject, subject, key.public_key(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, built)

    @classmethod
    def load(cls, pair: Pair) -> Authority:
        """The authority of a kept pair. Raises ValueError when it cannot be parsed or does not fit."""
        key = serialization.load_pem_private_key(pair.key, None)
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the authority's key is not that of its certificate")
        return cls(key, certificate)

    @property
    def pair(self) -> Pair:
        """Its own certificate and key, to be kept."""
        return Pair(self._certificate.public_bytes(serialization.Encoding.PEM), _pem(self._key))

    def issue(self, leaf: Leaf, lifetime: dt.timedelta) -> Pair:
        """A new key and its certificate for `leaf`."""
        key = ec.generate_private_key(ec.SECP256R1())
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        subject = _common_name(leaf.name)
        signed = (
            _dated(subject, self._certificate.subject, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(both, critical=False)
            .add_extension(leaf.names, critical=False)
            .add_extension(key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(signed.public_bytes(serialization.Encoding.PEM), _pem(key))


def ends_at(certificate: bytes) -> dt.datetime:
    """When a certificate (PEM) runs out. Raises ValueError."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def is_for(certificate: bytes, leaf: Leaf) -> bool:
    """Whether a certificate (PEM) is for all the names of `leaf`, and no other. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate).extensions
    try:
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return {*names} == {*leaf.names}


def serial_of(certificate: bytes) -> int:
    """A certificate's number (PEM). Raises ValueError."""
    return x509.load_pem_x509_certificate(certificate).serial_number


def _dated(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


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
