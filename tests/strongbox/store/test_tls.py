"""Mutual TLS to etcd, by certificates made here."""

from __future__ import annotations

import datetime
import ipaddress
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, Tls
from strongbox.store.etcd.errors import Unavailable
from tests.support.etcd import EtcdCluster, EtcdTls


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def make_tls(folder: Path) -> EtcdTls:
    """An authority of its own and one certificate for 127.0.0.1."""
    folder.mkdir()
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = EtcdTls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    files.authority.write_bytes(_certificate("ca", authority, "ca", authority, ca=True))
    files.certificate.write_bytes(_certificate("etcd", key, "ca", authority, ca=False))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


async def test_only_a_certificate_of_the_clusters_authority_opens_etcd(tmp_path: Path, prefix: bytes) -> None:
    ours, foreign = make_tls(tmp_path / "ours"), make_tls(tmp_path / "foreign").client()
    authority = ours.authority.read_bytes()
    intruders = [None, foreign, Tls(authority, foreign.certificate, foreign.key)]
    with EtcdCluster(3, tls=ours) as cluster:
        etcd = Etcd(cluster.endpoints, cluster.tls)
        await etcd.transact(
            txn.txn([], [txn.put(prefix, b"1")]), deadline=time.monotonic() + 10, idempotent=True
        )
        assert await etcd.get(prefix) is not None
        await etcd.close()
        for tls in intruders:
            other = Etcd(cluster.endpoints, tls)
            with pytest.raises(Unavailable):
                await other.get(prefix, deadline=time.monotonic() + 1)
            await other.close()


def test_the_private_key_is_not_shown() -> None:
    assert "hidden" not in repr(Tls(b"ca", b"certificate", b"hidden"))
