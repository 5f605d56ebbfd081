"""A database role names a template that is there, on the server that its connection is for by then."""

from __future__ import annotations

import pytest

from services.lease import repository
from services.lease.credentials.issue import Issuer
from strongbox.errors import DependencyDown, InvalidInput, NotFound
from strongbox.storage.v1 import lease_records_pb2 as storage
from tests.services.lease.support import Lease
from tests.services.lease.workshop import Workshop


async def test_a_role_whose_template_is_not_in_the_database_is_refused(shop: Workshop) -> None:
    with pytest.raises(InvalidInput, match="template_role does not exist"):
        await shop.call("WritePostgresRole", name="r", connection="c", template_role="nobody")
    with pytest.raises(NotFound):
        await shop.call("ReadPostgresRole", name="r")
    recorded = await shop.recorded("WritePostgresRole")
    assert [(one.outcome, one.path) for one in recorded][-1] == ("refused", "sys/postgres/roles/r")


async def test_a_role_is_not_written_for_a_server_that_nobody_looked_at(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was changed while the template was looked for: it is another server's by now."""
    servers = ["one", "other"]

    def connect_to(host: str) -> None:
        record = storage.ConnectionRecord(name="c", dsn=f"postgresql://{host}/app", username="u")
        lease.store.run(lambda view: repository.put_connection(view, lease.keys, record))

    async def looks(*_: object) -> None:
        if len(servers) > 1:
            connect_to(servers.pop())

    monkeypatch.setattr(Issuer, "require_template", looks)
    connect_to("one")
    with pytest.raises(DependencyDown, match="changed meanwhile"):
        await lease.call("WritePostgresRole", name="r", connection="c", template_role="t")
    assert lease.store.value(repository.role_key("r")) is None
    assert [(one.op, one.outcome) for one in lease.pipeline.audited] == [("WritePostgresRole", "refused")]
    await lease.call("WritePostgresRole", name="r", connection="c", template_role="t")
    assert lease.store.value(repository.role_key("r")) is not None
