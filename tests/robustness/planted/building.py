"""No bug by itself: how bugs change the transaction of a batch after it was built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strongbox.store.decisions import batch_txn


def after_building(change: Callable[[Any], None]) -> None:
    """Have `change` applied to every batch's transaction before it is sent."""
    build = batch_txn.build

    def changed(*args: Any, **named: Any) -> Any:
        request = build(*args, **named)
        change(request)
        return request

    batch_txn.build = changed


def drop_compares(prefix: bytes) -> None:
    """No part of a batch compares a key of this prefix any more."""

    def change(request: Any) -> None:
        for part in request.success[1:]:
            kept = [one for one in part.request_txn.compare if not one.key.startswith(prefix)]
            del part.request_txn.compare[:]
            part.request_txn.compare.extend(kept)

    after_building(change)
