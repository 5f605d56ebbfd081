"""A seal that answers while a credential is made: nobody gets it, and its role goes on time."""

from __future__ import annotations

import time

import pytest

from services.lease import credential_lease
from strongbox.errors import Sealed, UnknownOutcome
from strongbox.lease.v1 import lease_service_pb2 as pb
from strongbox.rpc.request_context import Inbound, bind
from tests.services.lease.test_crashes import recover
from tests.services.lease.workshop import Workshop, ours
from tests.support.border import answered
from tests.support.postgres import PostgresServer


async def test_a_credential_that_is_not_handed_out_dies_on_time(
    shop: Workshop, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_at = list[float]()
    # The last thing that is done before the answer.
    monkeypatch.setattr(shop.measures.issue_seconds, "observe", lambda _: sealed_at.append(time.monotonic()))

    def require_unsealed_since(proven: float) -> None:
        if sealed_at and sealed_at[0] >= proven:
            raise Sealed

    bind(Inbound(shop.root, "request", "127.0.0.1", "", time.monotonic() + 4.5))
    asking = pb.IssueCredentialRequest(role="c")
    with pytest.raises(UnknownOutcome, match="not handed out"):
        await answered(shop.servicer, "IssueCredential", asking, require_unsealed_since)
    (record,) = (await shop.grants()).values()
    assert record.state == credential_lease.ACTIVE
    assert record.id in ours(postgres.roles()).values()
    await recover(shop, record.ttl_s + 1)
    assert record.id not in ours(postgres.roles()).values()
