"""Whether a term is over a holder asks its memory, which still holds an earlier term, and never etcd."""

import sys
from typing import Any

from strongbox.store.decisions.deciding import Decider
from strongbox.store.duties.election import Deposed

_refreshes = Decider._refreshes


def _from_memory(self: Any, item: Any, view: Any) -> bool:
    return not isinstance(sys.exc_info()[1], Deposed) and _refreshes(self, item, view)


Decider._refreshes = _from_memory  # type: ignore[method-assign]
