"""A cluster that was initialized, in memory, and the hands to decide on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.seal import seal_decisions
from services.seal.repository import SealState
from services.seal.seal_decisions import Standing
from services.seal.unsealing import initialize
from services.seal.unsealing.initialize import Origin
from strongbox.crypto.shamir import Share
from strongbox.storage.v1 import seal_records_pb2 as storage
from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import Draft
from tests.support.fakes import FakeStore


def draft() -> Draft:
    return Draft(op="Unseal", path="sys/unseal", request_id="r", client="127.0.0.1")


@dataclass
class World:
    """Made by init; every method decides and carries out."""

    shares: int = 3
    threshold: int = 2
    origin: Origin = field(init=False)
    store: FakeStore = field(default_factory=FakeStore)
    audited: list[str] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        self.origin = initialize.conceive(self.shares, self.threshold, self.store.now_ms)
        self.store.run(lambda view: initialize.found(view, self.origin), draft())

    @property
    def config(self) -> storage.SealConfig:
        return storage.SealConfig.FromString(self.origin.puts[keyspace.SEAL_CONFIG])

    @property
    def state(self) -> SealState:
        state = SealState.parse(self.store.value(keyspace.SEAL_STATE))
        assert state is not None
        return state

    def share(self, index: int) -> Share:
        return self.origin.shares[index - 1]

    def give(self, index: int, nonce: str = "fresh", call: str = "", *, lost: bool = False) -> Standing:
        """By a call of its own, unless `call` names one."""
        self.calls += 1
        call, share = call or f"call-{self.calls}", self.share(index)
        outcome = self.store.run(
            lambda view: seal_decisions.give(view, share, nonce, call, lost=lost), draft()
        )
        if outcome.view.draft is not None:
            self.audited.append("Unseal")
        assert isinstance(outcome.value, Standing)
        return outcome.value

    def given(self) -> frozenset[int]:
        """The shares counted."""
        return self._look().given

    def nonce(self) -> str:
        """Of the attempt under way."""
        return self._look().nonce

    def _look(self) -> Standing:
        standing = self.store.run(seal_decisions.look).value
        assert isinstance(standing, Standing)
        return standing

    def complete(self, nonce: str, node: str = "node-1") -> SealState:
        replica = storage.SealReplica(node=node, ordinal="1", lease=7)
        outcome = self.store.run(lambda view: seal_decisions.complete(view, nonce, replica), draft())
        assert isinstance(outcome.value, SealState)
        return outcome.value

    def replica(self, node: str) -> storage.SealReplica:
        return storage.SealReplica.FromString(self.store.value(keyspace.seal_replica(node)) or b"")
