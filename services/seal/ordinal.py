"""This replica's ordinal, from its own certificate: that is where peers see it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from strongbox.config import ConfigError
from strongbox.rpc.peer_identity import parse_peer


def own_ordinal(certificate: Path) -> str:
    """From `spiffe://strongbox/seal/<ordinal>` in a PEM file. Raises ConfigError, OSError."""
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ConfigError(f"{certificate}: no name in it") from None
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier) or [""]
    peer = parse_peer(uri)
    if peer.service != "seal" or peer.ordinal is None:
        raise ConfigError(f"{certificate}: not a seal replica's certificate")
    return str(peer.ordinal)
