"""Every service's certificate, every prefix, every way to touch it: exactly what is allowed passes.

The matrix is written down here by hand, from who owns what, not from the table under test.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from strongbox.config import SERVICES
from strongbox.dev.certs import Certificates
from strongbox.store import keyspace
from strongbox.store.etcd import attempts, txn
from strongbox.store.etcd.client import Etcd, Options, Tls
from strongbox.store.etcd.errors import EtcdError, PermissionDenied, Refused
from strongbox.store.etcd.etcd_users import Users
from strongbox.store.etcd.watch import watch
from tests.support.etcd import EtcdCluster, EtcdTls

NODE = "node-1"
NAMES = (*SERVICES, "gateway", "etcd", "operator", "upkeep")
SERVICE_LIST = ("seal", "kv", "auth", "lease", "audit")
ALL = frozenset(SERVICE_LIST)
PATIENT = Options(attempt=15.0, total=30.0)  # what is asked here is who may, not how fast
NONE: frozenset[str] = frozenset()
R = keyspace.ROOT
# Key: who may write (and read, compare, delete) it; who may read and compare it only.
OWN = {
    R + f"{prefix}/{owner}/x".encode(): (
        frozenset({owner, "audit"}) if prefix.startswith("audit") else frozenset({owner}),
        NONE if prefix.startswith("audit") else ALL - {owner},
    )
    for prefix in ("audit/outbox", "audit/producers", "election", "cluster/nodes")
    for owner in SERVICE_LIST
}
MATRIX: dict[bytes, tuple[frozenset[str], frozenset[str]]] = {
    **OWN,
    R + b"seal/config": (frozenset({"seal"}), NONE),
    R + b"seal/anything/new": (frozenset({"seal"}), NONE),
    keyspace.SEAL_STATE: (frozenset({"seal"}), ALL - {"seal"}),
    keyspace.SEAL_STATE + b"x": (frozenset({"seal"}), NONE),
    keyspace.head("a"): (frozenset({"kv"}), NONE),
    R + b"kv/anything/new": (frozenset({"kv"}), NONE),
    keyspace.token("d"): (frozenset({"auth", "seal"}), ALL - {"auth", "seal"}),
    keyspace.accessor("a"): (frozenset({"auth", "seal"}), ALL - {"auth", "seal"}),
    keyspace.policy("p"): (frozenset({"auth"}), ALL - {"auth"}),
    keyspace.REVOKED + b"x": (frozenset({"auth"}), ALL - {"auth"}),
    R + b"auth/access/anything/new": (frozenset({"auth"}), ALL - {"auth"}),
    R + b"auth/private/users/u": (frozenset({"auth"}), NONE),
    R + b"auth/private/anything": (frozenset({"auth"}), NONE),
    keyspace.read_lease("l"): (frozenset({"lease", "kv"}), NONE),
    keyspace.LEASES_DUE + b"x": (frozenset({"lease", "kv"}), NONE),
    R + b"lease/grants/g": (frozenset({"lease"}), NONE),
    R + b"lease/anything/new": (frozenset({"lease"}), NONE),
    keyspace.AUDIT_KEY: (frozenset({"audit", "seal"}), NONE),
    keyspace.AUDIT_MARK: (frozenset({"audit"}), ALL - {"audit"}),
    keyspace.AUDIT_BACKLOG: (frozenset({"audit"}), ALL - {"audit"}),
    keyspace.AUDIT_SLOTS + b"00": (ALL, NONE),
    R + b"audit/anything/new": (frozenset({"audit"}), NONE),
    keyspace.CLUSTER_ID: (frozenset({"seal"}), ALL - {"seal"}),
    keyspace.CLUSTER_TIME: (frozenset({"seal", "audit"}), ALL - {"seal", "audit"}),
    R + b"cluster/anything/new": (NONE, ALL),
    b"/elsewhere": (NONE, NONE),
    b"\0": (NONE, NONE),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("roles") / "certs")
    made.ensure([NODE])
    return made


def files_of(certificates: Certificates, name: str) -> Tls:
    known = {"operator": certificates.operator, "upkeep": certificates.upkeep}
    files = known.get(name) or certificates.of(NODE, name)
    return Tls.read(certificates.authority, files.certificate, files.key)


@pytest.fixture(scope="module")
def member(certificates: Certificates) -> Iterator[EtcdCluster]:
    """One member with the table's users, authentication on."""
    files = certificates.of(NODE, "etcd")
    with EtcdCluster(1, EtcdTls(certificates.authority, files.certificate, files.key)) as cluster:
        asyncio.run(ensure(cluster, certificates))
        yield cluster


async def ensure(cluster: EtcdCluster, certificates: Certificates) -> None:
    etcd = Etcd(cluster.endpoints, files_of(certificates, "operator"), PATIENT)
    try:
        await Users(etcd).ensure()
    finally:
        await etcd.close()


@pytest.fixture
async def clients(member: EtcdCluster, certificates: Certificates) -> AsyncIterator[dict[str, Etcd]]:
    made = {name: Etcd(member.endpoints, files_of(certificates, name), PATIENT) for name in NAMES}
    yield made
    for client in made.values():
        await client.close()


Attempt = Callable[[Etcd, bytes], Awaitable[object]]


async def read(etcd: Etcd, key: bytes) -> object:
    return await etcd.get(key)


async def compare(etcd: Etcd, key: bytes) -> object:
    return await etcd.transact(txn.txn([txn.mod_is(key, 7)], []))


async def nested_compare(etcd: Etcd, key: bytes) -> object:
    inner = txn.txn([txn.mod_is(key, 7)], [])
    return await etcd.transact(txn.txn([], [txn.RequestOp(request_txn=inner)]))


async def put(etcd: Etcd, key: bytes) -> object:
    return await etcd.transact(txn.txn([], [txn.put(key, b"v")]))


async def nested_put(etcd: Etcd, key: bytes) -> object:
    inner = txn.txn([], [txn.put(key, b"v")])
    return await etcd.transact(txn.txn([], [txn.RequestOp(request_txn=inner)]))


async def put_in_the_other_branch(etcd: Etcd, key: bytes) -> object:
    return await etcd.transact(txn.txn([], [], [txn.put(key, b"v")]))


async def delete(etcd: Etcd, key: bytes) -> object:
    return await etcd.transact(txn.txn([], [txn.delete(key)]))


READS: tuple[Attempt, ...] = (read, compare, nested_compare)
WRITES: tuple[Attempt, ...] = (put, nested_put, put_in_the_other_branch, delete)


async def is_allowed(attempt: Attempt, etcd: Etcd, key: bytes) -> bool:
    try:
        await attempt(etcd, key)
    except PermissionDenied:
        return False
    return True


@pytest.mark.parametrize("service", SERVICE_LIST)
async def test_a_services_certificate_does_what_the_matrix_says_and_nothing_else(
    clients: dict[str, Etcd], service: str
) -> None:
    wrong = []
    for key, (writers, readers) in MATRIX.items():
        for attempt in (*READS, *WRITES):
            may = service in writers or (attempt in READS and service in readers)
            if await is_allowed(attempt, clients[service], key) != may:
                wrong.append(f"{service} {attempt.__name__} {key!r}: not {may}")
    assert wrong == []


@pytest.mark.parametrize("who", ["gateway", "etcd"])
async def test_who_has_no_user_touches_nothing(clients: dict[str, Etcd], who: str) -> None:
    for key in MATRIX:
        for attempt in (*READS, *WRITES):
            assert not await is_allowed(attempt, clients[who], key), f"{who} {attempt.__name__} {key!r}"


async def test_a_watch_is_a_read(clients: dict[str, Etcd]) -> None:
    for who, key in (("kv", R + b"auth/private/users/u"), ("auth", keyspace.head("a")), ("lease", b"\0")):
        async with aclosing(watch(clients[who], key)) as batches, asyncio.timeout(30):
            with pytest.raises(PermissionDenied):
                await anext(batches)
    mine = keyspace.REVOKED + secrets.token_hex(4).encode()
    put_at = (await clients["auth"].transact(txn.txn([], [txn.put(mine, b"v")]))).header.revision
    async with aclosing(watch(clients["lease"], mine, start_revision=put_at)) as batches, asyncio.timeout(30):
        assert (await anext(batches)).events[0].key == mine


@pytest.mark.parametrize("service", SERVICE_LIST)
async def test_nobody_reads_or_deletes_a_range_that_is_wider_than_its_own(
    clients: dict[str, Etcd], service: str
) -> None:
    etcd = clients[service]
    for key, end in ((R, keyspace.prefix_end(R)), (b"\0", b"\0")):
        with pytest.raises(PermissionDenied):
            await etcd.range(key, end)
        with pytest.raises(PermissionDenied):
            await etcd.transact(txn.txn([], [txn.delete(key, end)]))


async def test_a_lease_with_keys_is_revoked_only_by_who_may_write_them(clients: dict[str, Etcd]) -> None:
    for key, (writers, _) in MATRIX.items():
        if not writers:
            continue
        owner = clients[min(writers)]
        for service in SERVICE_LIST:
            lease = secrets.randbits(62) + 1
            await owner.lease_grant(lease, 60)
            await owner.transact(txn.txn([], [txn.put(key, b"held", lease)]))
            try:
                await clients[service].lease_revoke(lease)
                revoked = True
            except PermissionDenied:
                revoked = False
                await owner.lease_revoke(lease)
            assert revoked is (service in writers), f"{service} {key!r}"


async def test_upkeep_is_for_the_operator_and_for_upkeep_alone(clients: dict[str, Etcd]) -> None:
    for name, etcd in clients.items():
        member = etcd.ring.members[0].address
        known = await clients["operator"].status(member)

        async def disarm(etcd: Etcd = etcd) -> object:
            return await etcd.caller.ask(attempts.ALARM, _disarm(), deadline=None, idempotent=True)

        for attempt in (
            lambda etcd=etcd, member=member: etcd.status(member),
            lambda etcd=etcd, at=known.revision: etcd.compact(at, physical=False),
            lambda etcd=etcd, member=member: etcd.defragment(member),
            disarm,
        ):
            try:
                await attempt()
                done = True
            except EtcdError:
                done = False
            assert done is (name in ("operator", "upkeep")), name


async def test_no_service_changes_users_or_roles(clients: dict[str, Etcd]) -> None:
    for name in (*SERVICE_LIST, "gateway", "etcd"):
        with pytest.raises((PermissionDenied, Refused)):
            await Users(clients[name], within=30.0).ensure()


async def test_setting_the_users_again_repairs_what_somebody_changed(
    clients: dict[str, Etcd], member: EtcdCluster, certificates: Certificates
) -> None:
    from etcd3.etcdrpc import auth_pb2
    from etcd3.etcdrpc import rpc_pb2 as pb

    from strongbox.store.etcd import etcd_users

    async def ask(method: object, request: object) -> None:
        await clients["operator"].caller.ask(method, request, deadline=None, idempotent=True)  # type: ignore[arg-type]

    wide = auth_pb2.Permission(permType=auth_pb2.Permission.WRITE, key=b"\0", range_end=b"\0")
    await ask(etcd_users._GRANT, pb.AuthRoleGrantPermissionRequest(name="kv", perm=wide))
    await ask(etcd_users._USER_ADD, etcd_users._without_password("gateway"))
    await ask(etcd_users._GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="gateway", role="root"))
    await ask(etcd_users._GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="kv", role="audit"))
    assert await is_allowed(put, clients["kv"], R + b"audit/mark")
    await ensure(member, certificates)
    assert not await is_allowed(put, clients["kv"], R + b"audit/mark")
    assert not await is_allowed(put, clients["kv"], b"/elsewhere")
    assert not await is_allowed(put, clients["gateway"], R + b"kv/x")


async def test_only_a_members_certificate_speaks_to_members(certificates: Certificates) -> None:
    """The peers' port of the local cluster's own flags."""
    from strongbox.dev.layout import Layout
    from strongbox.dev.processes import etcd as dev_etcd

    layout = Layout(
        Path("nowhere"), 1, 1, False, False, "", {"node-1": dict.fromkeys(("etcd", "etcd-peer"), 1)}
    )
    flags = dev_etcd.member(layout, NODE).command
    assert "--peer-cert-allowed-cn=etcd" in flags


def _disarm() -> object:
    from etcd3.etcdrpc import rpc_pb2 as pb

    return pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE)
