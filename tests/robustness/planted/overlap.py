"""Two decisions of one batch may touch the same keys."""

from strongbox.store.batch import Claims

Claims.admits = lambda *_: True  # type: ignore[method-assign]
