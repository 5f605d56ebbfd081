"""Key terms: staged, in use, retired; and what is counted against them."""

from __future__ import annotations

import pytest

from services.seal.custody.held_keys import Custody
from services.seal.key_terms import term_decisions, wrap_counter
from services.seal.key_terms.term_decisions import FreshTerm, Terms
from services.seal.keys import keyring, root_key
from strongbox.access.guard import require_unsealed
from strongbox.clock import ManualClock
from strongbox.crypto.envelope import Dek
from strongbox.crypto.memory_protection import LockedBytes
from strongbox.errors import Overloaded, Sealed
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from tests.services.seal.unsealing.test_initialize import opened
from tests.services.seal.worlds import World
from tests.support.access import FakeInbound


class Life(World):
    """A cluster that was unsealed, and its keys in custody."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store.seed(keyspace.SEAL_STATE, b"unsealed:2")
        self.clock = ManualClock()
        self.custody = Custody(self.clock)
        root = root_key.open_root(self.config, self.origin.shares[:2])
        self.root = root
        self.custody.hold(LockedBytes(root), opened(self), 2, self.clock.monotonic())

    def stage(self) -> int:
        fresh = FreshTerm(self.custody)
        number = self.store.run(lambda view: term_decisions.stage(view, fresh)).value
        assert isinstance(number, int)
        return number

    def activate(self, term: int) -> Terms:
        found = self.store.run(lambda view: term_decisions.activate(view, term)).value
        assert isinstance(found, Terms)
        return found

    def retire(self) -> object:
        return self.store.run(term_decisions.retire).value

    def known(self) -> Terms:
        found = self.store.run(term_decisions.read).value
        assert isinstance(found, Terms)
        return found

    def keys(self) -> keyring.Keyring:
        stored = storage.Keyring.FromString(self.store.value(keyspace.SEAL_KEYRING) or b"")
        records = storage.RecordKeyring.FromString(self.store.value(keyspace.SEAL_RECORD_KEY) or b"")
        return keyring.open_keyring(self.root, self.config.cluster_id, stored, records)

    def finish(self, service: str, term: int, *, finished: bool = True, confirmed: bool = True) -> None:
        record = storage.RewrapProgress(term=term, done=5, total=5, finished=finished, confirmed=confirmed)
        self.store.seed(keyspace.REWRAPS[service], record.SerializeToString())


def test_a_staged_term_is_held_and_not_used_until_it_is_activated() -> None:
    life = Life()
    assert life.stage() == 2
    assert (life.known().all, life.known().current, life.known().staged) == ((1, 2), 1, 2)
    keys = life.keys()
    assert (keys.term, sorted(keys.record_keys.by_term)) == (1, [1, 2])
    assert life.stage() == 2, "two rotations at once are one"
    assert life.store.value(keyspace.SEAL_STATE) == b"unsealed:2"
    assert life.activate(2).current == 2
    assert life.store.value(keyspace.SEAL_STATE) == b"unsealed:2:2"
    assert life.keys().term == 2
    revision = life.store.revision
    assert life.activate(2).current == 2
    assert life.store.revision == revision, "it is in use already"


def test_what_a_term_wrapped_is_rewrapped_and_opens_under_the_next() -> None:
    life = Life()
    deks = [Dek.fresh() for _ in range(3)]
    before = life.keys().wrap("kv", deks)
    life.activate(life.stage())
    keys = life.keys()
    moved = keys.rewrap("kv", before)
    assert [one.term for one in moved if one] == [2, 2, 2]
    assert keys.unwrap("kv", [one for one in moved if one]) == [dek.key for dek in deks]
    assert keys.rewrap("auth", before) == [None] * 3, "another purpose's"


def test_sealing_keeps_the_term_in_use_in_the_state() -> None:
    life = Life()
    life.activate(life.stage())
    state = life.state
    assert (state.term, state.next(is_sealed=True).encode()) == (2, b"sealed:3:2")
    view = life.store.view()
    assert require_unsealed(view, FakeInbound("")) == 2  # type: ignore[arg-type]


def test_no_term_is_begun_or_put_to_use_while_sealed_or_with_a_root_key_that_was_wiped() -> None:
    life = Life()
    number = life.stage()
    life.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    with pytest.raises(Sealed):
        life.activate(number)
    with pytest.raises(Sealed):
        life.stage()
    other = Life()
    fresh = FreshTerm(other.custody)
    other.custody.wipe()
    with pytest.raises(Sealed):
        other.store.run(lambda view: term_decisions.stage(view, fresh))


def test_an_old_term_stays_until_every_service_has_finished_and_looked_twice() -> None:
    life = Life()
    life.activate(life.stage())
    assert life.retire() == ()
    for service in ("kv", "auth", "audit"):
        life.finish(service, 2)
    assert life.retire() == (), "lease has said nothing"
    life.finish("lease", 2, finished=False)
    assert life.retire() == ()
    life.finish("lease", 1)
    assert life.retire() == (), "it finished an older term"
    life.finish("lease", 2, confirmed=False)
    assert life.retire() == (), "it has looked only once"
    life.finish("lease", 2)
    assert life.retire() == (1,)
    assert life.known().all == (2,)
    keys = life.keys()
    assert (keys.term, list(keys.record_keys.by_term)) == (2, [2])
    assert life.retire() == ()


def test_a_staged_term_is_not_retired_with_the_old_ones() -> None:
    life = Life()
    life.activate(life.stage())
    for service in keyspace.REWRAPS:
        life.finish(service, 2)
    assert life.stage() == 3
    assert life.retire() == (1,)
    assert life.known().all == (2, 3)


def test_progress_is_never_complete_before_every_service_has_begun() -> None:
    done = storage.RewrapProgress(term=2, done=7, total=7, finished=True)
    under_way = storage.RewrapProgress(term=2, done=3, total=7)
    assert term_decisions.rewrapped([done, done, done], 1) == (0, 0)
    assert term_decisions.rewrapped([done, under_way], 2) == (10, 14)
    for progress in ([done, storage.RewrapProgress()], [done, done], [under_way]):
        finished, total = term_decisions.rewrapped(progress, 3)
        assert finished < total
    overtaken = storage.RewrapProgress(term=2, done=9, total=7)
    over = [storage.RewrapProgress(term=2, passed_over=3), storage.RewrapProgress(term=3, passed_over=4)]
    assert (term_decisions.passed_over(over, 2), term_decisions.passed_over(over, 3)) == (7, 4)
    assert (
        term_decisions.parse_progress(b"\xff\xff")
        == term_decisions.parse_progress(None)
        == storage.RewrapProgress()
    )
    finished, total = term_decisions.rewrapped([overtaken], 2)
    assert finished < total, "more was there than counted; it is not finished all the same"


def test_wraps_are_reserved_in_ranges_and_end_before_two_to_the_31() -> None:
    life = Life()

    def reserve(count: int) -> object:
        return life.store.run(lambda view: wrap_counter.reserve(view, 1, count)).value

    assert reserve(4096) == 4096
    assert reserve(4096) == 8192
    life.store.seed(keyspace.wraps(1), b"%d" % (wrap_counter.LIMIT - 10))
    assert wrap_counter.RETIRE_AT < wrap_counter.LIMIT - 10
    with pytest.raises(Overloaded):
        reserve(11)
    assert reserve(10) == wrap_counter.LIMIT
    with pytest.raises(Overloaded):
        reserve(1)


def test_wraps_shown_are_those_reserved_without_those_unused() -> None:
    own = keyspace.wraps(2)
    rows = [
        (keyspace.wraps(1), b"100"), (own, b"8192"), (own + b"/node-1", b"4000"), (own + b"/node-2", b"92"),
    ]  # fmt: skip
    assert wrap_counter.used(rows, 2) == 4100
    assert wrap_counter.used(rows, 3) == 0
