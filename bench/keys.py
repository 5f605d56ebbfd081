"""`python -m bench.keys`: wraps and unwraps a second, and a rotation with its whole rewrap under load.

Three nodes by the development command. The versions to be rewrapped are put straight into etcd, in the form
and under the keys that writing them would have given: writing a hundred thousand of them through the gateway
would be most of the run. Prints one line of JSON for each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from services.seal.keys.keyring import purpose_kek
from strongbox.access.authenticated_records import RecordKeys, seal_record
from strongbox.config import Settings
from strongbox.crypto.envelope import Dek, seal_value, wrap_dek
from strongbox.crypto.shamir import Share
from strongbox.dev.certs import Certificates
from strongbox.rpc.key_client import KeyClient
from strongbox.storage.v1 import kv_records_pb2
from strongbox.store import keyspace
from strongbox.store.envelope_records import to_record
from strongbox.store.etcd import txn
from strongbox.store.etcd.client import Etcd, Tls
from tests.robustness.load import Load
from tests.support.clients import Patience
from tests.support.cluster import Cluster
from tests.support.cluster_keys import keys_of

KEPT = 10  # versions of each secret: the newest in its head, nine older ones


def main() -> int:
    """Exit 0; 1 when a request failed or something was not rewrapped."""
    parser = argparse.ArgumentParser(prog="bench.keys", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--versions", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each round of wraps")
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    with Cluster.start(3) as cluster:
        asyncio.run(_wraps(cluster, options.seconds))
        asyncio.run(_seed(cluster, options.versions))
        return _rotation(cluster, options.versions, options.clients)


def _tell(**figure: object) -> None:
    print(json.dumps(figure), flush=True)


async def _wraps(cluster: Cluster, seconds: float) -> None:
    """kv's questions at one node: batches one after the other, as one process asks them."""
    files = Certificates(Path(cluster.description["certs"])).of("node-1", "kv")
    addresses = [process.address for process in cluster.processes() if process.name == "seal"]
    settings = Settings.model_validate({
        "node_id": "node-1", "service": "kv", "etcd_endpoints": cluster.description["etcd"],
        "tls_cert": files.certificate, "tls_key": files.key, "seal_addresses": tuple(addresses),
        "tls_ca": Path(cluster.description["certs"]) / "ca.pem",
    })  # fmt: skip
    client = KeyClient(settings)
    await client.start()
    await client.wait_unsealed()
    for batch in (1, 32, 256):
        deks = [Dek.fresh() for _ in range(batch)]
        wrapped = await client.wrap(deks)
        for kind, ask in (
            ("wrap", lambda d=deks: client.wrap(d)),
            ("unwrap", lambda w=wrapped: client.unwrap(w)),
            ("rewrap", lambda w=wrapped: client.rewrap(w)),
        ):
            times = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                started = time.monotonic()
                await ask()
                times.append(time.monotonic() - started)
            _tell(
                figure=kind, batch=batch, keys_per_s=round(batch * len(times) / sum(times)),
                p50_ms=round(1e3 * statistics.median(times), 2), p99_ms=round(1e3 * _p99(times), 2),
            )  # fmt: skip
    await client.close()


async def _seed(cluster: Cluster, versions: int) -> None:
    keys = keys_of(cluster, [Share.decode(share) for share in cluster.shares[:2]])
    kek = purpose_kek(keys["KEK 1"], "kv")
    records = RecordKeys({1: keys["record key 1"]}, 1)
    certs = Path(cluster.description["certs"])
    tls = Tls.read(certs / "ca.pem", certs / "operator.pem", certs / "operator.key")
    etcd = Etcd([str(one).removeprefix("https://") for one in cluster.description["etcd"]], tls)
    started = time.monotonic()
    now_ms = time.time_ns() // 10**6
    for first in range(0, versions // KEPT, 10):
        puts = []
        for number in range(first, first + 10):
            path = f"seeded/{number:07d}"
            envelopes = []
            for version in range(1, KEPT + 1):
                dek = Dek.fresh()
                wrapped = wrap_dek(kek, "kv", 1, dek)
                value = b"t" + f"{path} {version}".encode()
                envelopes.append(to_record(seal_value(dek, wrapped, "kv", path, version, value)))
            stored = [
                kv_records_pb2.StoredVersion(
                    version=version, created_ms=now_ms, size=len(one.ciphertext), dek_id=one.dek_id
                )
                for version, one in enumerate(envelopes, 1)
            ]
            head = kv_records_pb2.SecretHead(current_version=KEPT, versions=stored)
            key = keyspace.head(path)
            puts.append(txn.put(key, seal_record(records, key, head.SerializeToString())))
            puts += [
                txn.put(keyspace.envelope(path, version), envelope.SerializeToString())
                for version, envelope in enumerate(envelopes, 1)
            ]
        await etcd.transact(txn.txn([], puts), deadline=time.monotonic() + 5, idempotent=True)
    await etcd.close()
    _tell(figure="seeded", versions=versions, seconds=round(time.monotonic() - started, 1))


def _rotation(cluster: Cluster, versions: int, clients: int) -> int:
    with cluster.rest(cluster.root_token, 2, Patience()) as root:
        rules = [{"path": "secret/*", "capabilities": ["read", "write"]}]
        root.call("PUT", "/v1/policies/bench", {"rules": rules})
        token = str(root.call("POST", "/v1/tokens", {"policies": ["bench"]})["token"])
        with Load(cluster, token, clients=clients, nodes=[0, 1]) as load:
            load.wait_for(50)
            alone = _rate(load, 5.0)
            started = time.monotonic()
            told = root.call("POST", "/v1/sys/rotate")
            answered = time.monotonic() - started
            done_before, at = _done(load), time.monotonic()
            status = told
            while not status["rewrap"]["done"] == status["rewrap"]["total"] > versions * 0.9:
                time.sleep(0.5)
                status = root.call("GET", "/v1/sys/key-status")
            took = time.monotonic() - at
            during = (_done(load) - done_before) / took
            slowest = max(record.slowest for record in load.records)
            failures = list(load.failures)
        while (status := root.call("GET", "/v1/sys/key-status"))["terms"] != [2]:
            time.sleep(0.5)
        _tell(
            figure="rotation", versions=versions, rotate_answered_s=round(answered, 2),
            rewrapped=status["rewrap"]["total"], rewrap_s=round(took, 1),
            rewrapped_per_s=round(status["rewrap"]["total"] / took),
            requests_per_s_before=round(alone), requests_per_s_during=round(during),
            slowest_request_ms=round(1e3 * slowest), failures=len(failures),
            old_term_retired_after_s=round(time.monotonic() - at, 1),
        )  # fmt: skip
        wrong = [number for number in range(0, versions // KEPT, 97) if not _reads(root, number)]
    return 1 if failures or wrong else 0


def _reads(root: Any, number: int) -> bool:
    path = f"seeded/{number:07d}"
    return all(root.read(path, version=v)["value"] == f"{path} {v}" for v in (1, KEPT))


def _done(load: Load) -> int:
    return sum(record.acknowledged + record.reads for record in load.records)


def _rate(load: Load, seconds: float) -> float:
    before = _done(load)
    time.sleep(seconds)
    return (_done(load) - before) / seconds


def _p99(times: list[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))]


if __name__ == "__main__":
    sys.exit(main())
