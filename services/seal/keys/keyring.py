"""The keyring: for each key term a KEK, from which come the KEKs of each purpose and the record key.

    root key ──derived key, AES-256-GCM, AAD (cluster, term)──▶ term's KEK
    term's KEK ──HKDF "kek <purpose>"──▶ KEK of (purpose, term) ──▶ wraps that purpose's DEKs
    KEK of (records, term) ──▶ wraps the term's record key

* A purpose is a service, by its certificate; no certificate names `records`, so nobody can have a record key
  unwrapped as a data key. What kv wrapped, auth cannot unwrap: the key is another, and the purpose is in the
  AAD too.
* The term's KEK itself is used for derivation only, never as a cipher key, and is dropped once that is
  done.
* Only ciphers are kept (cleansed by OpenSSL when dropped), and the record keys, which other services get.
* Wrapping uses the term in use. A newer one may be there already: every replica holds it before any uses it
  (`key_terms`).
"""

from __future__ import annotations

from collections.abc import Iterable

from services.seal.keys import root_key
from strongbox.access.authenticated_records import RecordKeys
from strongbox.crypto.aead import Aead, Bytes, canonical_aad, derive, new_key
from strongbox.crypto.envelope import Dek, WrappedDek, unwrap_dek, wrap_dek
from strongbox.crypto.errors import IntegrityError, WipedError
from strongbox.storage.v1 import seal_records_pb2 as storage

CALLERS = ("kv", "lease", "auth", "audit")
RECORDS = "records"
_TERM_LABEL = "term kek v1"


class Keyring:
    """The open keys of one cluster."""

    def __init__(
        self, keks: dict[tuple[str, int], Aead], record_keys: RecordKeys, cluster_id: str = ""
    ) -> None:
        self.cluster_id = cluster_id
        self._keks = keks
        self._record_keys: RecordKeys | None = record_keys

    @property
    def record_keys(self) -> RecordKeys:
        """What records are authenticated with. Raises WipedError."""
        if self._record_keys is None:
            raise WipedError
        return self._record_keys

    @property
    def term(self) -> int:
        """The key term in use."""
        return self.record_keys.newest

    def knows(self, term: int) -> bool:
        """Whether this term's keys are held; those of a retired or forged one are not."""
        return term in self.record_keys.by_term

    def is_behind(self, term: int) -> bool:
        """Whether `term` is newer than all that are held: then etcd may have a newer keyring."""
        return term > max(self.record_keys.by_term)

    def wrap(self, purpose: str, deks: Iterable[Dek]) -> list[WrappedDek]:
        """Wrap under the term in use. Raises KeyError (unknown purpose), ValueError (malformed)."""
        kek = self._keks[purpose, self.term]
        return [wrap_dek(kek, purpose, self.term, dek) for dek in deks]

    def unwrap(self, purpose: str, wrapped: Iterable[WrappedDek]) -> list[bytes]:
        """The keys in the same order; an empty one for whatever does not open, for any reason."""
        return [self._unwrap(purpose, one) for one in wrapped]

    def rewrap(self, purpose: str, wrapped: Iterable[WrappedDek]) -> list[WrappedDek | None]:
        """The same keys under the term in use; None where one does not open. The keys stay here."""
        kek = self._keks[purpose, self.term]
        keys = ((one, self._unwrap(purpose, one)) for one in wrapped)
        return [wrap_dek(kek, purpose, self.term, Dek(one.id, key)) if key else None for one, key in keys]

    def wipe(self) -> None:
        """Drop every cipher and the record keys."""
        for kek in self._keks.values():
            kek.wipe()
        self._keks.clear()
        self._record_keys = None

    def _unwrap(self, purpose: str, wrapped: WrappedDek) -> bytes:
        kek = self._keks.get((purpose, wrapped.term))
        if kek is None:
            return b""
        try:
            return unwrap_dek(kek, purpose, wrapped)
        except IntegrityError:
            return b""

    def __repr__(self) -> str:
        return "Keyring(…)"


def new_term(root: Bytes, cluster_id: str, term: int, now_ms: int) -> tuple[storage.KeyTerm, bytes]:
    """A fresh term as it is stored, and its KEK (32 bytes)."""
    kek = new_key()
    box = root_key.keyring_cipher(root).seal(kek, _term_aad(cluster_id, term))
    return storage.KeyTerm(term=term, installed_ms=now_ms, kek=root_key.to_box(box)), kek


def term_kek(root: Bytes, cluster_id: str, entry: storage.KeyTerm) -> bytes:
    """A term's KEK (32 bytes). Raises IntegrityError."""
    cipher = root_key.keyring_cipher(root)
    try:
        return cipher.open(root_key.from_box(entry.kek), _term_aad(cluster_id, entry.term))
    finally:
        cipher.wipe()


def purpose_kek(kek: bytes, purpose: str) -> Aead:
    """The KEK of a purpose, from its term's."""
    return Aead(derive(kek, f"kek {purpose}"))


def wrap_record_key(kek: bytes, term: int, record_key: bytes) -> storage.WrappedRecordKey:
    """A term's record key as it is stored."""
    dek = Dek(Dek.fresh().id, record_key)
    wrapped = wrap_dek(purpose_kek(kek, RECORDS), RECORDS, term, dek)
    return storage.WrappedRecordKey(
        term=term, id=wrapped.id, ciphertext=wrapped.ciphertext, tag=wrapped.tag, nonce=wrapped.nonce
    )


def open_keyring(
    root: Bytes, cluster_id: str, stored: storage.Keyring, record_keys: storage.RecordKeyring
) -> Keyring:
    """Everything below the root key. Raises IntegrityError when any part does not open."""
    current = current_of(stored)
    keks: dict[tuple[str, int], Aead] = {}
    for entry in stored.terms:
        kek = term_kek(root, cluster_id, entry)
        keks.update({(purpose, entry.term): purpose_kek(kek, purpose) for purpose in (*CALLERS, RECORDS)})
    opened = {key.term: _record_key(keks, key) for key in record_keys.keys}
    if not opened or opened.keys() != {entry.term for entry in stored.terms}:
        raise IntegrityError
    if current not in opened:
        raise IntegrityError
    return Keyring(keks, RecordKeys(opened, current), cluster_id)


def current_of(stored: storage.Keyring) -> int:
    """The term in use. Raises IntegrityError for a keyring without terms."""
    if not stored.terms:
        raise IntegrityError
    return stored.current or max(entry.term for entry in stored.terms)


def _record_key(keks: dict[tuple[str, int], Aead], key: storage.WrappedRecordKey) -> bytes:
    kek = keks.get((RECORDS, key.term))
    if kek is None:
        raise IntegrityError
    return unwrap_dek(kek, RECORDS, WrappedDek(key.id, key.term, key.ciphertext, key.tag, key.nonce))


def _term_aad(cluster_id: str, term: int) -> bytes:
    # A term read from etcd can be anything; a negative one is a forgery, not a programming error.
    if term < 0:
        raise IntegrityError
    return canonical_aad(_TERM_LABEL, cluster_id, term)
