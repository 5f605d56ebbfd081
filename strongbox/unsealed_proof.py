"""When the cluster was last proved to be unsealed, for the call under way (docs/adr/0032).

The pipeline notes it for each transaction that compared the seal state and whose decision found it unsealed
(`View.found_unsealed`). It is asked for before the answer leaves (strongbox.rpc.revealing). Handlers do
nothing for it, so none can forget it; what was not noted counts as not proved.
"""

from __future__ import annotations

from contextvars import ContextVar


class Proof:
    """`since`: `time.monotonic()` right before the newest such transaction was sent; `None`: none was."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since: float | None = None


_current: ContextVar[Proof | None] = ContextVar("proof", default=None)


def begin() -> Proof:
    """A new Proof, which notes what is proved from now on in this task and in those that it begins."""
    proof = Proof()
    _current.set(proof)
    return proof


def note(asked: float) -> None:
    """Note that a transaction sent at `asked` (monotonic seconds) proved it; nothing without `begin`."""
    proof = _current.get()
    if proof is not None and (proof.since is None or asked > proof.since):
        proof.since = asked
