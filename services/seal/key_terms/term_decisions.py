"""Key terms as decisions: a new one is staged, then in use; an old one is retired when nothing uses it. Pure.

    staged    the term's keys are in the keyring; every replica and every service hears of them
    in use    `Keyring.current` and the seal state name it: whatever is wrapped or authenticated from now on
              is under it. Every decision compares the seal state, so one made under an older term and still
              on its way fails its compare, and is made again.
    retired   its keys are taken out of the keyring, for good

* Only one term is staged at a time: two rotations at the same time give one new term.
* Retiring compares the rewrapping progress of every service (`keyspace.REWRAPS`): one that has not finished
  with the term in use, or has written nothing, keeps every older term. Since nothing is made under an older
  term once a newer one is in use, a finished service has seen everything there is.
* Each service looks twice (`confirmed`), some time apart: so page tokens and answers on their way, made under
  the old term, have had that time to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from services.seal import repository
from services.seal.custody.held_keys import Custody
from services.seal.keys import keyring as keyrings
from services.seal.repository import SealState
from strongbox.crypto.aead import new_key
from strongbox.errors import Sealed
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View


class FreshTerm:
    """A term that is being made: its number is known when it is decided; deciding again gives the same keys.

    The root key is asked for at that moment: one that was wiped must not make a term that nothing opens. One
    object serves one call only.
    """

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._made: dict[int, tuple[storage.KeyTerm, storage.WrappedRecordKey]] = {}

    def numbered(self, term: int, now_ms: int) -> tuple[storage.KeyTerm, storage.WrappedRecordKey]:
        """The wrapped keys of `term`. Raises Sealed, NoQuorum."""
        if term not in self._made:
            root, _ = self._custody.root()
            cluster_id = self._custody.keyring().cluster_id
            with root.view() as secret:
                entry, kek = keyrings.new_term(secret, cluster_id, term, now_ms)
            self._made[term] = entry, keyrings.wrap_record_key(kek, term, new_key())
        return self._made[term]

    def __repr__(self) -> str:
        return "FreshTerm(…)"


@dataclass(frozen=True, slots=True)
class Terms:
    """The numbers of all terms; `current` is in use, `staged` comes next (0: none)."""

    all: tuple[int, ...]
    current: int
    staged: int
    installed_ms: int


def read(view: View) -> Terms:
    """The terms of the stored keyring. Raises NotInitialized, IntegrityError."""
    return terms_of(repository.require_keys(view)[0])


def terms_of(stored: storage.Keyring) -> Terms:
    """The terms of a keyring. Raises IntegrityError when it has none."""
    current = keyrings.current_of(stored)
    numbers = tuple(sorted(entry.term for entry in stored.terms))
    installed = [entry.installed_ms for entry in stored.terms if entry.term == current]
    newest = numbers[-1]
    return Terms(numbers, current, newest if newest > current else 0, installed[0] if installed else 0)


def stage(view: View, fresh: FreshTerm) -> int:
    """Put a new term beside the one in use; the staged term. Raises Sealed, NotInitialized."""
    _require_unsealed(view)
    stored, record_keys = repository.require_keys(view)
    known = terms_of(stored)
    if known.staged:
        return known.staged
    entry, record_key = fresh.numbered(known.all[-1] + 1, view.now_ms)
    stored.current = known.current
    stored.terms.append(entry)
    record_keys.keys.append(record_key)
    repository.put_keys(view, stored, record_keys)
    return entry.term


def activate(view: View, term: int) -> Terms:
    """Put `term` in use, unless it is already. Raises Sealed, NotInitialized."""
    state = _require_unsealed(view)
    stored, record_keys = repository.require_keys(view)
    known = terms_of(stored)
    if known.staged != term:
        view.draft = None
        return known
    stored.current = term
    for entry in stored.terms:
        if entry.term == term:
            entry.installed_ms = view.now_ms
    repository.put_keys(view, stored, record_keys)
    view.put(keyspace.SEAL_STATE, state.under(term).encode())
    return terms_of(stored)


def retire(view: View) -> tuple[int, ...]:
    """Remove the terms that nothing uses; returns them."""
    view.prefetch(keyspace.SEAL_STATE, *keyspace.REWRAPS.values())
    _require_unsealed(view)
    stored, record_keys = repository.require_keys(view)
    known = terms_of(stored)
    old = tuple(term for term in known.all if term < known.current)
    progress = {name: read_progress(view, name) for name in keyspace.REWRAPS}
    if not old or not is_finished(progress, known.current):
        return ()
    kept = storage.Keyring(
        terms=[one for one in stored.terms if one.term >= known.current], current=stored.current
    )
    kept_keys = storage.RecordKeyring(keys=[one for one in record_keys.keys if one.term >= known.current])
    repository.put_keys(view, kept, kept_keys)
    for term in old:
        view.delete(keyspace.wraps(term))
    return old


def read_progress(view: View, service: str) -> storage.RewrapProgress:
    """How far a service is; at the beginning when it has written nothing."""
    return parse_progress(view.get(keyspace.REWRAPS[service]).value)


def parse_progress(value: bytes | None) -> storage.RewrapProgress:
    """The progress at `<service>/rewrap`; at the beginning when there is none that can be read."""
    try:
        return storage.RewrapProgress.FromString(value or b"")
    except DecodeError:  # the service begins again; until it has finished no term is retired
        return storage.RewrapProgress()


def is_finished(progress: Mapping[str, storage.RewrapProgress], term: int) -> bool:
    """Whether every service has brought everything under `term`, and has looked twice."""
    return all(one.finished and one.confirmed and one.term >= term for one in progress.values())


def rewrapped(progress: Iterable[storage.RewrapProgress], term: int) -> tuple[int, int]:
    """(done, total) of all services; one that has not begun with `term` yet has at least one thing to do."""
    if term == 1:
        return 0, 0
    done = total = 0
    for one in progress:
        begun = one.term >= term
        all_of_it = max(one.total, one.done) if begun and one.finished else max(one.total, one.done + 1)
        total += all_of_it
        done += (all_of_it if one.finished else one.done) if begun else 0
    return done, total


def passed_over(progress: Iterable[storage.RewrapProgress], term: int) -> int:
    """How many records the services left as they are when they rewrapped to `term`."""
    return sum(one.passed_over for one in progress if one.term >= term)


def _require_unsealed(view: View) -> SealState:
    state = repository.require_state(view)
    if state.is_sealed:
        raise Sealed
    return state
