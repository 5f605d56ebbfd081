"""Rekey and generate-root as decisions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.seal.ceremonies import ceremony_decisions
from services.seal.ceremonies.ceremony_decisions import GENERATE_ROOT, REKEY
from services.seal.ceremonies.ceremony_results import make_shares, pending_mac
from services.seal.keys import root_key
from strongbox.crypto import IntegrityError
from strongbox.crypto.shamir import Share
from strongbox.errors import InvalidInput, PermissionDenied, RepeatedShare, Sealed, StrongBoxError, WrongShare
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.view import View
from tests.services.seal.worlds import World, draft

NONCE = ceremony_decisions.new_nonce()
ATTEMPT = ceremony_decisions.attempt_of(REKEY, NONCE)


class Life(World):
    """Unsealed, with hands for a rekey."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store.seed(keyspace.SEAL_STATE, b"unsealed:2")

    def begin(self, index: int = 1, kind: str = REKEY, attempt: bytes = ATTEMPT) -> None:
        share = self.share(index)
        self.do(lambda view: ceremony_decisions.start(view, kind, share, attempt, "first", (5, 3)))

    def give(self, index: int, call: str = "", held: frozenset[int] = frozenset()) -> None:
        share, self.calls = self.share(index), self.calls + 1
        name = call or f"call-{self.calls}"
        self.do(lambda view: ceremony_decisions.give(view, REKEY, share, ATTEMPT, name, held))

    def do(self, decide: Callable[[View], object]) -> object:
        return self.store.run(decide, draft()).value

    def refused(self, error: type[StrongBoxError], decide: Callable[[View], object]) -> None:
        before = dict(self.store.facts)
        with pytest.raises(error):
            self.do(decide)
        assert self.store.facts == before

    def record(self) -> storage.Ceremony:
        return storage.Ceremony.FromString(self.store.value(keyspace.ceremony(REKEY)) or b"")


def test_it_begins_with_a_valid_share_of_an_unsealed_cluster_and_once() -> None:
    life = Life()
    wrong = Share(1, bytes(32))
    life.refused(WrongShare, lambda view: ceremony_decisions.start(view, REKEY, wrong, ATTEMPT, "c"))
    life.begin()
    assert dict(life.record().given) == {1: "first"}
    other = ceremony_decisions.attempt_of(REKEY, "another")
    life.refused(InvalidInput, lambda view: ceremony_decisions.start(view, REKEY, life.share(2), other, "c"))
    life.begin(kind=GENERATE_ROOT, attempt=ceremony_decisions.attempt_of(GENERATE_ROOT, NONCE))
    life.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    life.refused(Sealed, lambda view: ceremony_decisions.find(view, REKEY))


def test_the_nonce_is_nowhere_and_no_other_one_goes_on_or_cancels() -> None:
    life = Life()
    life.begin()
    stored = b"".join(fact.value or b"" for fact in life.store.facts.values())
    assert NONCE.encode() not in stored
    for guess in ("", NONCE[:-1], NONCE + "x", ATTEMPT.hex()):
        attempt = ceremony_decisions.attempt_of(REKEY, guess)
        life.refused(PermissionDenied, lambda view: ceremony_decisions.cancel(view, REKEY, attempt))  # noqa: B023
        life.refused(
            PermissionDenied,
            lambda view: ceremony_decisions.give(view, REKEY, life.share(2), attempt, "c"),  # noqa: B023
        )
    # A nonce of the other kind is no nonce of this one.
    attempt = ceremony_decisions.attempt_of(GENERATE_ROOT, NONCE)
    life.refused(PermissionDenied, lambda view: ceremony_decisions.cancel(view, REKEY, attempt))
    life.do(lambda view: ceremony_decisions.cancel(view, REKEY, ATTEMPT))
    assert life.store.value(keyspace.ceremony(REKEY)) is None


@pytest.mark.parametrize("how", ["seal", "hour"])
def test_it_ends_by_sealing_and_after_an_hour(how: str) -> None:
    life = Life()
    life.begin()
    if how == "seal":
        life.store.seed(keyspace.SEAL_STATE, b"unsealed:4")
    else:
        life.store.now_ms += ceremony_decisions.LASTS_MS
    life.refused(InvalidInput, lambda view: ceremony_decisions.give(view, REKEY, life.share(2), ATTEMPT, "c"))
    life.begin(2)
    assert dict(life.record().given) == {2: "first"}


def test_a_share_counts_once_and_its_own_call_may_repeat_it() -> None:
    life = Life(5, 3)
    life.begin()
    life.give(2, "mine")
    life.give(2, "mine")
    life.refused(
        RepeatedShare, lambda view: ceremony_decisions.give(view, REKEY, life.share(2), ATTEMPT, "c")
    )
    life.refused(
        RepeatedShare, lambda view: ceremony_decisions.give(view, REKEY, life.share(1), ATTEMPT, "c")
    )
    enough = frozenset({1, 2, 4})
    life.do(lambda view: ceremony_decisions.give(view, REKEY, life.share(2), ATTEMPT, "c", enough))
    assert sorted(life.record().given) == [1, 2]
    life.do(lambda view: ceremony_decisions.correct(view, REKEY, ATTEMPT, frozenset({2})))
    assert sorted(life.record().given) == [2]
    life.give(1)
    assert sorted(life.record().given) == [1, 2]


def test_new_shares_open_the_same_root_key_and_replace_the_old_ones_when_verified() -> None:
    life = Life()
    life.begin()
    life.give(2)
    new = make_shares(life.config, life.origin.shares[:2], ATTEMPT, 5, 3)
    root = root_key.open_root(life.config, life.origin.shares[:2])
    assert root_key.open_root(new.config, new.shares[1:4]) == root
    with pytest.raises(IntegrityError):
        root_key.open_root(new.config, life.origin.shares[:2])
    life.do(lambda view: ceremony_decisions.propose(view, ATTEMPT, new.config, new.mac))
    life.refused(InvalidInput, lambda view: ceremony_decisions.propose(view, ATTEMPT, new.config, new.mac))
    life.refused(InvalidInput, lambda view: ceremony_decisions.give(view, REKEY, life.share(3), ATTEMPT, "c"))

    def ours(record: storage.Ceremony) -> bool:
        return record.pending_mac == pending_mac(root, record.attempt, record.pending)

    def verify(share: Share, call: str, is_ours: Callable[[storage.Ceremony], bool] = ours) -> object:
        return life.do(lambda view: ceremony_decisions.verify(view, share, ATTEMPT, call, is_ours)[1])

    with pytest.raises(InvalidInput):
        verify(new.shares[0], "c", lambda _: False)
    with pytest.raises(WrongShare):
        verify(life.share(1), "c")
    assert verify(new.shares[0], "a") is False
    assert verify(new.shares[0], "a") is False, "its own repetition"
    with pytest.raises(RepeatedShare):
        verify(new.shares[0], "b")
    assert verify(new.shares[4], "b") is False
    config = life.store.value(keyspace.SEAL_CONFIG)
    assert config == life.origin.puts[keyspace.SEAL_CONFIG], "the old ones are alive until now"
    assert verify(new.shares[2], "c") is True
    stored = storage.SealConfig.FromString(life.store.value(keyspace.SEAL_CONFIG) or b"")
    assert stored == new.config
    assert life.store.value(keyspace.ceremony(REKEY)) is None
    assert not root_key.is_share_of(stored, life.share(1))


def test_shares_that_do_not_open_the_root_key_make_nothing() -> None:
    life, other = Life(), Life()
    for present in (life.origin.shares[:1], [life.share(1), other.share(2)], other.origin.shares[:2]):
        with pytest.raises(IntegrityError):
            make_shares(life.config, present, ATTEMPT, 3, 2)


def test_every_step_proves_that_the_cluster_is_unsealed() -> None:
    """Else its answer, which may hold shares or a root token, would not leave (strongbox.rpc.revealing)."""
    life = Life()
    life.begin()
    view = life.store.view()
    ceremony_decisions.require(view, REKEY, ATTEMPT)
    assert view.proves_unsealed
    life.store.seed(keyspace.SEAL_STATE, b"sealed:3")
    view = life.store.view()
    with pytest.raises(Sealed):
        ceremony_decisions.find(view, REKEY)
    assert not view.proves_unsealed
