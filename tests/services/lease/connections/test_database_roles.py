"""A database role names a template that is there."""

from __future__ import annotations

import pytest

from strongbox.errors import InvalidInput, NotFound
from tests.services.lease.workshop import Workshop


async def test_a_role_whose_template_is_not_in_the_database_is_refused(shop: Workshop) -> None:
    with pytest.raises(InvalidInput, match="template_role does not exist"):
        await shop.call("WritePostgresRole", name="r", connection="c", template_role="nobody")
    with pytest.raises(NotFound):
        await shop.call("ReadPostgresRole", name="r")
    recorded = await shop.recorded("WritePostgresRole")
    assert [(one.outcome, one.path) for one in recorded][-1] == ("refused", "sys/postgres/roles/r")
