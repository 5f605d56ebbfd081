"""Each RPC of lease over native gRPC, through the gateway: what is promised when all is well."""

from __future__ import annotations

import re

import pytest

from tests.support.clients import GrpcClient
from tests.support.cluster import Cluster
from tests.support.coverage import Fresh, all_pages, covers
from tests.support.database import Credential, Database
from tests.support.expect import refused

pytestmark = pytest.mark.cluster


@covers("GetLease", "ListLeases", "RevokeLease")
def test_reading_gives_a_lease_that_is_seen_and_revoked(native: GrpcClient, fresh: Fresh) -> None:
    path = fresh("leased")
    native.call("WriteSecret", path=path, value="x")
    lease = native.call("ReadSecret", path=path).lease.id
    assert "/" not in lease
    seen = native.call("GetLease", id=lease)
    assert (seen.id, seen.state, seen.path) == (lease, "ACTIVE", f"secret/{path}")
    for query in ({"path": f"secret/{path}"}, {"accessor": seen.accessor, "page_size": 1000}):
        assert lease in [one.id for one in native.call("ListLeases", **query).leases]
    for _ in range(2):
        assert native.call("RevokeLease", id=lease).state == "REVOKED"
    assert native.call("GetLease", id=lease).state == "REVOKED"


@covers("RenewLease", "RevokeLeasePrefix")
def test_leases_are_renewed_and_end_by_their_prefix(native: GrpcClient, fresh: Fresh) -> None:
    folder = fresh("prefix")
    leases = []
    for name in ("a", "b"):
        native.call("WriteSecret", path=f"{folder}/{name}", value="x")
        leases.append(native.call("ReadSecret", path=f"{folder}/{name}").lease.id)
    renewed = native.call("RenewLease", id=leases[0], increment={"string_value": "30m"})
    assert (renewed.id, renewed.state) == (leases[0], "ACTIVE")
    assert renewed.ttl > 3500  # never back
    ended = native.call("RevokeLeasePrefix", prefix=f"secret/{folder}/")
    assert (ended.revoked, ended.pending, ended.next_page_token) == (2, 0, "")
    assert {native.call("GetLease", id=lease).state for lease in leases} == {"REVOKED"}
    refused("INVALID_ARGUMENT", native.call, "RenewLease", id=leases[0])


@covers("IssueCredential", "WritePostgresConnection", "ReadPostgresConnection", "DeletePostgresConnection")
@covers("ListPostgresConnections", "RotatePostgresRoot", "InspectPostgresConnection")
@covers("WritePostgresRole", "ReadPostgresRole", "DeletePostgresRole", "ListPostgresRoles")
def test_a_credential_is_made_from_a_role_over_a_connection(
    native: GrpcClient, cluster: Cluster, fresh: Fresh
) -> None:
    database, name = Database(cluster), fresh("Pg").replace("/", "-")
    with cluster.rest(cluster.root_token) as root:
        database.prepare(root, name, default_ttl="60s", max_leases=2)
    told = native.call("ReadPostgresConnection", name=name)
    assert (told.dsn, told.username, told.live_leases) == (database.dsn, "postgres", 0)
    assert "password" not in told.DESCRIPTOR.fields_by_name
    assert name in all_pages(native, "ListPostgresConnections", "names", page_size=1)
    assert name in all_pages(native, "ListPostgresRoles", "names", page_size=1)
    owned = native.call("InspectPostgresConnection", name=name)
    assert (owned.username, owned.more, list(owned.databases_left_out)) == ("postgres", False, [])
    assert ("table", f'public."{name}"') in [(one.type, one.identity) for one in owned.objects]
    issued = [native.call("IssueCredential", role=name) for _ in range(2)]
    refused("RESOURCE_EXHAUSTED/QUOTA_EXCEEDED", native.call, "IssueCredential", role=name)
    assert native.call("ReadPostgresRole", name=name).live_leases == 2
    first = issued[0]
    assert re.fullmatch("sb_[0-9a-f]{16}", first.username)
    assert (first.lease.ttl, first.lease.renewable) == (60, True)
    assert database.logs_in(Credential(first.username, first.password, first.lease.id, 60))
    assert native.call("RenewLease", id=first.lease.id, increment={"string_value": "2m"}).ttl == 120
    native.call("DeletePostgresRole", name=name)
    refused("NOT_FOUND", native.call, "IssueCredential", role=name)
    refused("INVALID_ARGUMENT/LIVE_LEASES", native.call, "DeletePostgresConnection", name=name)
    native.call("DeletePostgresConnection", name=name, revoke_leases=True)
    refused("NOT_FOUND", native.call, "ReadPostgresConnection", name=name)
    assert {native.call("GetLease", id=one.lease.id).state for one in issued} == {"REVOKED"}
    assert not database.roles() & {one.username for one in issued}
    for rpc in ("RotatePostgresRoot", "InspectPostgresConnection"):
        refused("NOT_FOUND", native.call, rpc, name=name)
