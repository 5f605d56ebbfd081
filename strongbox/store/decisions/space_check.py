"""Decisions weighed against etcd's space: what one does to it, and whether that may still be put."""

from __future__ import annotations

from strongbox.store import keyspace
from strongbox.store.decisions.audit_journal import size_of
from strongbox.store.decisions.cache import Memory
from strongbox.store.decisions.view import Unread, View
from strongbox.store.decisions.work import Item
from strongbox.store.space.admission import HISTORY, NOTHING_KNOWN, RECORDS, Effect, Room, Space, effect_of


class SpaceCheck:
    """What one replica's memory and its own count say of the space that is left."""

    def __init__(self, memory: Memory, space: Space) -> None:
        self._memory, self._space = memory, space

    def weigh(self, item: Item, view: View) -> None:
        """Know what the decision does to etcd's space. Raises `Overloaded`, `Unread`."""
        print_ = view.footprint
        if not self._space.quota or not (print_.puts or print_.deletes or view.drafts):
            item.effect = Effect.SAFETY  # nothing is refused here (seal), or nothing of it is left behind
            return
        changed = bool(print_.puts or print_.deletes)
        said = item.work.effect or (view.effect if changed else None)
        records = size_of(view.drafts)
        records = records if records > RECORDS else 0  # reading goes on
        if said is Effect.NEUTRAL and sum(map(len, print_.puts.values())) + records > HISTORY:
            said = Effect.GROWS
        item.effect = said or effect_of(print_.puts, print_.deletes, print_.reads, self._held, records)
        self.require_space(item)

    def _held(self, key: bytes) -> bytes | None:
        known = self._memory.recall(key)
        return known.fact.value if known is not None else None

    def may_grow(self, since: float) -> bool:
        """Whether growth is taken now, for a request that came at `since`. Raises `Unread`."""
        return not self.refuses(Effect.GROWS, since)

    def require_space(self, item: Item) -> None:
        """Raises `Overloaded` when what has its effect is refused; `Unread`."""
        if self.refuses(item.effect, item.accepted):
            raise self._space.refusal(item.effect)

    def refuses(self, effect: Effect, since: float) -> bool:
        """Whether etcd is too full, by a look made since the request came. Raises `Unread`: look first."""
        known = self._memory.recall(keyspace.ROOM)
        room = known.parsed(keyspace.ROOM, Room.parse) if known is not None else None
        if room is not None and known is not None and room.revision >= known.fact.mod_revision:
            room = None  # measured in the future: another cluster's, or a lie
        if not self._space.refuses(effect, room or NOTHING_KNOWN):
            return False
        if known is None or known.seen_at < since:
            raise Unread((keyspace.ROOM,))
        return True
