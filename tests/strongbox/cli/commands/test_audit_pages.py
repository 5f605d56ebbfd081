"""How many entries `strongbox audit list` shows, over pages that may be short."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from strongbox.audit.v1 import audit_service_pb2 as pb
from strongbox.cli.commands import audit
from strongbox.errors import InvalidInput


class Log:
    """Entries 10 to 19; what is below is archived, as the service answers it."""

    FIRST = 10

    def page(self, _: int, limit: int, *, before_index: int | None, **__: Any) -> pb.ListEntriesResponse:
        end = 20 if before_index is None else before_index
        if end <= self.FIRST:
            raise InvalidInput("the log begins with 10: what is below is archived")
        start = max(self.FIRST, end - min(limit, 4))
        entries = [pb.Entry(index=index) for index in reversed(range(start, end))]
        return pb.ListEntriesResponse(entries=entries, next_index=start, first_index=self.FIRST)


@pytest.mark.parametrize(("limit", "shown", "told"), [(7, 7, ""), (10, 10, ""), (50, 10, "begins with 10")])
def test_the_newest_entries_of_a_log_that_was_archived_are_shown(
    limit: int, shown: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box = cast("Any", SimpleNamespace(audit=Log()))
    assert len(list(audit._some(box, 0, limit, {"newest_first": True}))) == shown
    assert told in capsys.readouterr().err
