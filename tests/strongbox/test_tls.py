"""Certificates that are replaced while they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongbox.dev.certs import Certificates
from strongbox.tls import Identity, Material

NODES = ["node-1"]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path / "certs")
    made.ensure(NODES)
    return made


def identity(certificates: Certificates) -> Identity:
    files = certificates.of("node-1", "kv")
    return Identity(certificates.authority, files.certificate, files.key)


def as_on_disk(certificates: Certificates) -> Material:
    files = certificates.of("node-1", "kv")
    return Material(
        certificates.authority.read_bytes(), files.certificate.read_bytes(), files.key.read_bytes()
    )


def test_what_was_renewed_counts_and_what_was_not_is_the_same_object(certificates: Certificates) -> None:
    mine = identity(certificates)
    first = mine.current()
    assert first == as_on_disk(certificates)
    assert mine.current() is first
    certificates.rotate(NODES)
    assert mine.current() == as_on_disk(certificates) != first


def test_a_key_that_does_not_fit_changes_nothing_until_its_certificate_is_there(
    certificates: Certificates,
) -> None:
    mine = identity(certificates)
    first = mine.current()
    other = certificates.of("node-1", "auth")
    files = certificates.of("node-1", "kv")
    key, certificate = other.key.read_bytes(), other.certificate.read_bytes()
    files.key.write_bytes(key)
    assert mine.current() is first
    files.certificate.write_bytes(certificate)
    assert mine.current().key == key


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_broken_authority_changes_nothing(certificates: Certificates, broken: bytes) -> None:
    mine = identity(certificates)
    first = mine.current()
    certificates.authority.write_bytes(broken)
    assert mine.current() is first


def test_files_that_go_away_are_missed_only_by_who_never_read_them(certificates: Certificates) -> None:
    mine = identity(certificates)
    first = mine.current()
    certificates.of("node-1", "kv").key.unlink()
    assert mine.current() is first
    with pytest.raises(OSError, match=r"kv\.key"):
        identity(certificates).current()


def test_a_key_is_not_in_the_text_of_what_holds_it(certificates: Certificates) -> None:
    assert "PRIVATE" not in repr(identity(certificates).current())
