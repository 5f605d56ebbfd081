"""Certificates of a local cluster: one authority, and a certificate for each process, made together.

    certs/ca.pem, authority.key            what all trust, and what signs (0600; docs/adr/0083)
    certs/operator.pem, upkeep.pem         people's; that of whoever compacts etcd
    certs/node-1/kv.pem, kv.key …          a process's
    certs/.issued/<number>/node-1          where they are: node-1 is a link, replaced in one step

So a certificate and its key are renewed together, as in a secret's volume in Kubernetes. If one is missing or
about to run out when the cluster starts, all are made anew, the authority too. Files 0600 in folders 0700.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strongbox.authority import Authority, Leaf, Pair, ends_at

LIFETIME = dt.timedelta(days=365)
_SPARE = dt.timedelta(days=7)
_NODE_NAMES = ("seal", "kv", "auth", "lease", "audit", "gateway", "etcd")
_PEOPLE = ("operator", "upkeep")
_ISSUED = ".issued"
Addresses = Mapping[str, Sequence[str]]  # IP addresses by node


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of one identity."""

    certificate: Path
    key: Path


class Certificates:
    """A cluster's certificates, and their keys beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"
        self._authority_key = folder / "authority.key"

    def of(self, node: str, name: str) -> Certificate:
        """Those of one process of one node."""
        return self._named(f"{node}/{name}")

    @property
    def operator(self) -> Certificate:
        """Those of the people who look after the cluster (etcd maintenance, tests)."""
        return self._named("operator")

    @property
    def upkeep(self) -> Certificate:
        """Those for compacting and defragmenting etcd."""
        return self._named("upkeep")

    def ensure(self, nodes: list[str], addresses: Addresses | None = None) -> None:
        """Make all of them, unless all are there and good for another week.

        `addresses`: IP addresses of a node that its certificates name beside the loopback one.
        """
        people = [self._named(name) for name in _PEOPLE]
        wanted = [*people, *(self.of(node, name) for node in nodes for name in _NODE_NAMES)]
        if not all(_is_good(each) for each in wanted) or not self._can_sign:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            authority = Authority.create("StrongBox development CA")
            _write(self._authority_key, authority.pair.key)
            _write(self.authority, authority.pair.certificate)
            self._issue(authority, nodes, LIFETIME, addresses or {})

    def rotate(
        self, nodes: list[str], lifetime: dt.timedelta = LIFETIME, addresses: Addresses | None = None
    ) -> None:
        """New keys and certificates for all, by the same authority. Raises OSError, ValueError."""
        kept = Pair(self.authority.read_bytes(), self._authority_key.read_bytes())
        self._issue(Authority.load(kept), nodes, lifetime, addresses or {})

    @property
    def _can_sign(self) -> bool:
        return self.authority.exists() and self._authority_key.exists()

    def _named(self, stem: str) -> Certificate:
        return Certificate(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")

    def _issue(
        self, authority: Authority, nodes: list[str], lifetime: dt.timedelta, addresses: Addresses
    ) -> None:
        for name in _PEOPLE:
            self._put(self._named(name), authority.issue(Leaf(name, name), lifetime))
        number = max(self._issues(), default=0) + 1
        room = self.folder / _ISSUED / str(number)
        for leaf, node in _leaves(nodes, addresses):
            files = Certificate(room / node / f"{leaf.name}.pem", room / node / f"{leaf.name}.key")
            self._put(files, authority.issue(leaf, lifetime))
        for node in nodes:
            _link(self.folder / node, Path(_ISSUED) / str(number) / node)
        # Somebody may be reading the last ones.
        for old in (each for each in self._issues() if each < number - 1):
            shutil.rmtree(self.folder / _ISSUED / str(old))

    def _issues(self) -> list[int]:
        room = self.folder / _ISSUED
        return [int(each.name) for each in room.iterdir() if each.name.isdigit()] if room.exists() else []

    def _put(self, files: Certificate, pair: Pair) -> None:
        files.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(files.key, pair.key)
        _write(files.certificate, pair.certificate)


def _leaves(nodes: list[str], addresses: Addresses) -> Iterator[tuple[Leaf, str]]:
    for ordinal, node in enumerate(nodes, 1):
        for name in _NODE_NAMES:
            every = tuple(dict.fromkeys(("127.0.0.1", *addresses.get(node, ()))))
            yield Leaf(name, f"seal/{ordinal}" if name == "seal" else name, (), every), node


def _write(path: Path, content: bytes) -> None:
    """Owner only from the first byte on; whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.rename(path)


def _link(path: Path, target: Path) -> None:
    """Make `path` a link to `target` in one step."""
    if path.is_dir() and not path.is_symlink():  # of an older version
        shutil.rmtree(path)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)


def _is_good(files: Certificate) -> bool:
    try:
        return (
            files.key.exists() and ends_at(files.certificate.read_bytes()) > dt.datetime.now(dt.UTC) + _SPARE
        )
    except (OSError, ValueError):
        return False
