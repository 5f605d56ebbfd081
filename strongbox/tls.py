"""This process's certificate, key and authority, as the files hold them now: they are renewed while it runs.

* Three files cannot be read in one step, and whoever renews them may replace one after the other (or, better,
  a folder in one step, as Kubernetes does with a secret). What was read counts only if no file changed
  meanwhile and the key fits the certificate; until then the former material stays in use.
* A look is a stat of three files (some 5 µs), so every handshake may look.
* The authority's file may hold several certificates: the old one beside the new one while both are in use.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)
_Stamp = tuple[tuple[int, int, int], ...]


class TlsFiles(Protocol):
    """Where a process's certificate is (strongbox.config.Settings)."""

    @property
    def tls_cert(self) -> Path: ...
    @property
    def tls_key(self) -> Path: ...
    @property
    def tls_ca(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Material:
    """PEM of the cluster's authority, and of a certificate and its private key, that belong together."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


class Identity:
    """The newest material of three files. Safe in any thread: gRPC asks in threads of its own."""

    def __init__(self, authority: Path, certificate: Path, key: Path) -> None:
        self._paths = (authority, certificate, key)
        self._lock = threading.Lock()
        self._stamp: _Stamp = ()
        self._current: Material | None = None

    def current(self) -> Material:
        """The material in use. Raises OSError only when no valid files were ever read."""
        with self._lock:
            try:
                self._look()
            except OSError as error:  # also ssl.SSLError: the key does not fit, or this is no certificate
                if self._current is None:
                    raise
                _log.warning(
                    "the certificate's files make no sense; the former ones are kept", why=str(error)
                )
            assert self._current is not None
            return self._current

    def _look(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        authority, certificate, key = (path.read_bytes() for path in self._paths)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._paths[1], self._paths[2])
        context.load_verify_locations(self._paths[0])
        if self._read_stamp() == stamp:
            self._current, self._stamp = Material(authority, certificate, key), stamp
        elif self._current is None:
            raise OSError("the certificate's files change while they are read")

    def _read_stamp(self) -> _Stamp:
        found = (path.stat() for path in self._paths)
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


@lru_cache(maxsize=64)
def identity(authority: Path, certificate: Path, key: Path) -> Identity:
    """The one Identity of these files in this process."""
    return Identity(authority, certificate, key)


def identity_of(files: TlsFiles) -> Identity:
    """The Identity of the files that a process's settings name."""
    return identity(files.tls_ca, files.tls_cert, files.tls_key)
