"""What is refused and never ignored: else a rehearsal that passes would say more than it saw."""

from __future__ import annotations


class NotRehearsed(Exception):
    """The manifests ask for something that the rehearsal does not do, or that a kubelet would refuse."""
