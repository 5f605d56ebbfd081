"""Certificates near their end are renewed, and whoever runs takes them up without a restart."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.rehearsal.door import eventually
from tests.rehearsal.scene import Broken, Scene

_AUTHORITY = "strongbox-authority-tls"
_PORTS = {"etcd": 2379, "seal": 8301, "kv": 8302, "auth": 8303, "lease": 8304, "audit": 8305, "gateway": 8443}
_PEM = serialization.Encoding.PEM


def renewed(scene: Scene) -> str | None:
    """All are made to end in 20 days; then the CronJob runs (or cert-manager looks), and files change."""
    begun, restarts = time.time(), scene.restarts()
    names = [
        secret["metadata"]["name"]
        for secret in scene.stage.store.list("secrets", "strongbox")
        if secret["metadata"]["name"].endswith("-tls") and secret["metadata"]["name"] != _AUTHORITY
    ]
    for name in names:
        _age(scene, name)
    if scene.overlay != "prod-cert-manager":
        scene.kubectl("create job renewed --from=cronjob/strongbox-certificates")
        scene.kubectl("wait --for=condition=Complete job/renewed --timeout=1m", 70)
    eventually(30, lambda: all(_days_left(scene, name) > 60 for name in names), "new certificates")
    for kind, port in _PORTS.items():
        for pod in scene.stage.pods(kind):
            address, name = pod["status"]["podIP"], pod["metadata"]["name"]
            secret = f"{name if kind == 'seal' else f'strongbox-{kind}'}-tls"
            serial = _held(scene, secret).serial_number
            eventually(
                30, lambda a=address, p=port, s=serial: _shown(a, p) == s, f"the new certificate at {name}"
            )
    now = scene.restarts()
    again = [name for name in restarts.keys() & now.keys() if now[name] != restarts[name]]
    if again:
        raise Broken(f"restarted: {again}")
    remark = f"{len(names)} certificates"
    return f"{remark}; {scene.judged(begun)}" if scene.load else remark


def _held(scene: Scene, name: str) -> x509.Certificate:
    secret = scene.stage.store.get("secrets", "strongbox", name)
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


def _days_left(scene: Scene, name: str) -> float:
    left = _held(scene, name).not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left.total_seconds() / 86400


def _shown(address: str, port: int) -> int:
    """The serial number of the certificate that a server shows."""
    raw = ssl.get_server_certificate((address, port), timeout=5)
    return x509.load_pem_x509_certificate(raw.encode()).serial_number


def _age(scene: Scene, name: str) -> None:
    """The same certificate, but that it ends in 20 days."""
    authority = scene.stage.store.get("secrets", "strongbox", _AUTHORITY)["data"]
    issuer = x509.load_pem_x509_certificate(base64.b64decode(authority["tls.crt"]))
    key = serialization.load_pem_private_key(base64.b64decode(authority["tls.key"]), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    held = _held(scene, name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(held.subject)
        .issuer_name(issuer.subject)
        .public_key(held.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
        .not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(days=20))
    )
    for extension in held.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    text = builder.sign(key, hashes.SHA256()).public_bytes(_PEM)
    secret = scene.stage.store.get("secrets", "strongbox", name)
    secret["data"]["tls.crt"] = base64.b64encode(text).decode()
    scene.stage.store.replace("secrets", secret)
