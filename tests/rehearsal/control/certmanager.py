"""cert-manager's controller: a secret for each Certificate, signed by its Issuer, renewed before its end."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.rehearsal.control.store import Object, Store, now

_PEM = serialization.Encoding.PEM
_USAGES = {"server auth": ExtendedKeyUsageOID.SERVER_AUTH, "client auth": ExtendedKeyUsageOID.CLIENT_AUTH}


def reconcile(store: Store, certificate: Object) -> None:
    """Make or renew its secret, as soon as its issuer can."""
    metadata, spec = certificate["metadata"], certificate["spec"]
    namespace = metadata["namespace"]
    secret = store.find("secrets", namespace, spec["secretName"])
    if secret is not None and _is_current(secret, spec):
        return
    issuer = store.find("issuers", namespace, spec["issuerRef"]["name"])
    if issuer is None:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    if "selfSigned" in issuer["spec"]:
        signed = _sign(spec, key, None)
        authority = signed
    else:
        known = store.find("secrets", namespace, issuer["spec"]["ca"]["secretName"])
        if known is None:
            return
        authority = x509.load_pem_x509_certificate(base64.b64decode(known["data"]["tls.crt"]))
        signing = serialization.load_pem_private_key(base64.b64decode(known["data"]["tls.key"]), None)
        signed = _sign(spec, key, (authority, signing))
    private = key.private_bytes(
        _PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    data = {
        "tls.crt": signed.public_bytes(_PEM), "tls.key": private, "ca.crt": authority.public_bytes(_PEM)
    }  # fmt: skip
    _put(store, certificate, secret, {name: base64.b64encode(raw).decode() for name, raw in data.items()})


def _put(store: Store, certificate: Object, secret: Object | None, data: dict[str, str]) -> None:
    metadata, spec = certificate["metadata"], certificate["spec"]
    if secret is not None:
        store.replace("secrets", secret | {"data": data})
    else:
        place = {"name": spec["secretName"], "namespace": metadata["namespace"]}
        value = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": place}
        store.create("secrets", value | {"data": data})
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
    key = ("certificates", metadata["namespace"], metadata["name"])
    store.change(key, lambda value: value.update(status={"conditions": [ready]}))


def _is_current(secret: Object, spec: Object) -> bool:
    held = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    left = held.not_valid_after_utc - dt.datetime.now(dt.UTC)
    if left < _span(spec.get("renewBefore", "0h")):
        return False
    try:
        names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not spec.get("dnsNames")
    return {*names.get_values_for_type(x509.DNSName)} == {*spec.get("dnsNames", ())}


def _sign(spec: Object, key: Any, issuer: tuple[x509.Certificate, Any] | None) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec["commonName"])])
    begins = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _span(spec["duration"]))
        .add_extension(x509.BasicConstraints(bool(spec.get("isCA")), None), critical=True)
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.get("dnsNames", ())]
    names += [x509.UniformResourceIdentifier(uri) for uri in spec.get("uris", ())]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in spec.get("ipAddresses", ())]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    usages = [_USAGES[usage] for usage in spec.get("usages", ()) if usage in _USAGES]
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def _span(text: str) -> dt.timedelta:
    """Go's form of a duration: `2160h`, `1h30m`."""
    units = {"h": "hours", "m": "minutes", "s": "seconds"}
    return dt.timedelta(**{units[unit]: int(n) for n, unit in re.findall(r"(\d+)([hms])", text)})
