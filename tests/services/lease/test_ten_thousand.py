"""Thousands of credentials expire in the same second: all are ended, and nobody's request waits or fails.

Real: a cluster by the development command, its gateway, etcd and PostgreSQL; each credential's role (a member
of the template, with the comment by which it is known to be ours, a password and VALID UNTIL); each lease's
record, index entries and counters, made by the service's own code under the cluster's record key; the reaper
that ends them; the requests meanwhile. Not as issued: the roles are made by one statement of SQL and their
leases put straight into etcd, since issuing ten thousand takes minutes; and all share one password, whose
verifier has one iteration, not 4096 (PostgreSQL computes it again for each role that is made).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from services.lease import credential_lease
from services.lease.postgres import scram
from services.lease.postgres.login_roles import comment_of
from strongbox.access.authenticated_records import open_record
from strongbox.crypto.record_keys import RecordKeys
from strongbox.crypto.shamir import Share
from strongbox.store import keyspace
from strongbox.store.etcd.client import Etcd as Client
from strongbox.store.etcd.client import Tls
from tests.support import leases
from tests.support.cluster import Cluster
from tests.support.cluster_keys import keys_of
from tests.support.database import Database
from tests.support.expect import eventually
from tests.support.store import Etcd

NAME, PASSWORD = "many", "one-password-for-all-of-them"
_MAKE = """
DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT * FROM unnest({names}::text[], {comments}::text[]) AS t(name, comment) LOOP
    EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L IN ROLE "many_template"',
                   one.name, {verifier}, to_timestamp({until}));
    EXECUTE format('COMMENT ON ROLE %I IS %L', one.name, one.comment);
  END LOOP;
END $$"""


class Requests:
    """Clients that read secrets and issue credentials until they are stopped; a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self.slowest, self.done, self.failures = dict[str, float](), dict[str, int](), list[str]()
        self._cluster, self._stop = cluster, threading.Event()
        kinds = [("read", "/v1/secrets/many")] * 2 + [("issue", f"/v1/dynamic-postgres/{NAME}")]
        self._threads = [threading.Thread(target=self._ask, args=kind) for kind in kinds]

    def _ask(self, kind: str, path: str) -> None:
        with self._cluster.rest(self._cluster.root_token) as rest:
            while not self._stop.wait(0.02 if kind == "read" else 0.2):
                begun = time.monotonic()
                try:
                    rest.call("GET", path)
                except Exception as error:
                    self.failures.append(f"{kind}: {error}")
                self.done[kind] = self.done.get(kind, 0) + 1
                self.slowest[kind] = max(self.slowest.get(kind, 0.0), time.monotonic() - begun)

    def __enter__(self) -> Requests:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


class Crowd:
    """So many credentials that expire at one moment (`expires`, seconds since the epoch)."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self.cluster, self.database = cluster, Database(cluster)
        opened = keys_of(cluster, [Share.decode(share) for share in cluster.shares[:2]])
        self._keys = RecordKeys({1: opened["record key 1"]}, 1)
        with Etcd(cluster) as etcd:
            self._cluster_id = etcd.rows(keyspace.CLUSTER_ID)[keyspace.CLUSTER_ID].decode()
        with cluster.rest(cluster.root_token) as root:
            root.write("many", "x")
            self.database.prepare(root, NAME, max_leases=50_000)
            accessor = str(root.call("GET", "/v1/tokens/self")["accessor"])
        self.expires = int(time.time()) + 8 + count // 300
        self.records = [
            leases.grant(number, accessor, self._now_ms(), self.expires * 1000, NAME)
            for number in range(count)
        ]

    def make(self) -> None:
        """The roles first, as when they are issued; then the leases."""
        names = [record.username for record in self.records]
        comments = [comment_of(self._cluster_id, record.id) for record in self.records]
        with closing(self.database.open()) as connection, connection.cursor() as cursor:
            values = {
                "names": names, "comments": comments, "until": self.expires,
                "verifier": scram.verifier(PASSWORD, iterations=1),
            }  # fmt: skip
            quoted = {key: cursor.mogrify("%s", (value,)).decode() for key, value in values.items()}
            cursor.execute(_MAKE.format(**quoted))
        asyncio.run(self._seed())

    def roles(self) -> set[str]:
        """Those of its roles that exist."""
        return self.database.roles() & {record.username for record in self.records}

    def states(self) -> dict[Any, int]:
        """How many of its leases are in which state."""
        mine, found = {record.id for record in self.records}, dict[Any, int]()
        with Etcd(self.cluster) as etcd:
            rows = etcd.rows(keyspace.GRANTS)
        for key, value in rows.items():
            record = credential_lease.Record.FromString(open_record(self._keys, key, value))
            if record.id in mine:
                found[record.state] = found.get(record.state, 0) + 1
        return found

    def logs_in(self, number: int) -> bool:
        """Whether one of them does."""
        try:
            self.database.open(self.records[number].username, PASSWORD).close()
        except psycopg2.OperationalError:
            return False
        return True

    async def _seed(self) -> None:
        certs = Path(self.cluster.description["certs"])
        tls = Tls.read(certs / "ca.pem", certs / "operator.pem", certs / "operator.key")
        endpoints = [str(one).removeprefix("https://") for one in self.cluster.description["etcd"]]
        etcd = Client(endpoints, tls)
        puts = [leases.putting_grant(self._keys, record) for record in self.records]
        await leases.seed(etcd, puts, self._now_ms())
        await etcd.close()

    @staticmethod
    def _now_ms() -> int:
        return time.time_ns() // 1_000_000


def end_together(count: int, nodes: int, tell: Callable[[str], None]) -> None:
    """Make them, let them expire, and see to it that all ends while requests go on."""
    with Cluster.start(nodes, postgres=True) as cluster:
        crowd = Crowd(cluster, count)
        crowd.make()
        assert time.time() < crowd.expires - 1, "making them took too long"
        assert crowd.logs_in(0)
        assert len(crowd.roles()) == count
        with Requests(cluster) as requests:
            time.sleep(max(0.0, crowd.expires - time.time()))
            eventually(10 + count / 20, _require_none, crowd)
            took = time.time() - crowd.expires
            eventually(20, _require_revoked, crowd)
        told = ", ".join(
            f"{number} of {kind}, slowest {requests.slowest[kind]:.2f} s"
            for kind, number in sorted(requests.done.items())
        )
        tell(f"{count} credentials that expired in one second: no role left {took:.1f} s later ({told})")
        assert not requests.failures
        assert not crowd.logs_in(0)
        # Nothing else was taken away: what was issued meanwhile lives.
        assert len(crowd.database.roles()) == requests.done["issue"] > 0
        with cluster.rest(cluster.root_token) as root:
            role = root.call("GET", f"/v1/postgres/roles/{NAME}")
            assert int(role["live_leases"]) == requests.done["issue"]


def _require_none(crowd: Crowd) -> None:
    left = len(crowd.roles())
    time.sleep(0.2)
    assert left == 0, f"{left} roles are left"


def _require_revoked(crowd: Crowd) -> None:
    states = crowd.states()
    assert states == {credential_lease.REVOKED: len(crowd.records)}, states


def test_three_hundred_credentials_that_expire_together_are_all_ended() -> None:
    end_together(300, 1, lambda _: None)


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_ten_thousand_credentials_that_expire_together_are_all_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    end_together(10_000, 1, tell)
