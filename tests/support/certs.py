"""The certificates of a one-node cluster, as settings of each identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from strongbox.dev.certs import Certificates
from tests.support.etcd import EtcdTls

NODE = "node-1"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process's files, and where it would find the seal service."""

    tls_ca: Path
    tls_cert: Path
    tls_key: Path
    seal_addresses: tuple[str, ...] = ()


class Identities:
    """Everybody's certificates, made once in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._all = Certificates(folder)
        self._all.ensure([NODE])

    def of(self, service: str, seal_addresses: tuple[str, ...] = ()) -> Identity:
        """A service's, the gateway's or the operator's."""
        files = self._all.operator if service == "operator" else self._all.of(NODE, service)
        return Identity(self._all.authority, files.certificate, files.key, seal_addresses)

    def etcd(self) -> EtcdTls:
        """The etcd members'."""
        files = self._all.of(NODE, "etcd")
        return EtcdTls(self._all.authority, files.certificate, files.key)
