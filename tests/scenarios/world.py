"""The cluster that the checks share: made when first needed, brought to the state that a check asks for."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any

from tests.support.clients import GrpcClient, Patience, RestClient
from tests.support.cluster import Cluster
from tests.support.expect import eventually, outcome
from tests.support.lab import Lab

SHARES, THRESHOLD = 5, 3
_OF_EACH_SERVICE = (
    "/v1/sys/ready",
    "/v1/secrets-list",
    "/v1/tokens/self",
    "/v1/leases?path=secret/none",
    "/v1/audit?limit=1",
)
_fresh = itertools.count(1)


class World:
    """Three nodes, not initialised at first. `short` is what `make test` has time for."""

    def __init__(self, short: bool) -> None:
        self.short, self.patience = short, Patience()
        self.shares: list[str] = []
        self.root_token = ""
        self._cluster: Cluster | None = None
        self._hosts: tuple[Cluster, Lab] | None = None

    @property
    def cluster(self) -> Cluster:
        """Started, in whatever state it is."""
        if self._cluster is None:
            self._cluster = Cluster.start(3, unseal=False, postgres=True)
        return self._cluster

    def initialized(self) -> Cluster:
        """With shares and a root token."""
        if not self.shares:
            with self.rest(node=0) as rest:
                made = rest.call("POST", "/v1/sys/init", {"shares": SHARES, "threshold": THRESHOLD})
            self.shares, self.root_token = list(made["shares"]), str(made["root_token"])
        return self.cluster

    def unsealed(self) -> Cluster:
        """Every node serves."""
        cluster = self.initialized()
        for number, share in enumerate(self.shares[:THRESHOLD]):
            if not self.is_sealed():
                break
            with self.rest(node=number % 3) as rest:
                refusal = outcome(rest.call, "POST", "/v1/sys/unseal", {"share": share})
            # A check that failed on its way may have given some already.
            assert refusal is None or refusal.reason == "REPEATED_SHARE", str(refusal)
        self.wait_ready()
        return cluster

    def sealed(self) -> Cluster:
        """Every node is sealed, and no share has been given."""
        cluster = self.initialized()
        if not self.is_sealed():
            with self.rest(self.root_token) as rest:
                rest.call("POST", "/v1/sys/seal", {})
            for node in range(3):
                eventually(10, self.is_sealed, node)
        return cluster

    def is_sealed(self, node: int = 0) -> bool:
        """What that node's seal process says; it begins a new life when it seals, so ask until it answers."""
        with self.rest(node=node) as rest:
            return bool(eventually(10, rest.call, "GET", "/v1/sys/seal-status")["sealed"])

    def wait_ready(self, seconds: float = 20.0) -> None:
        """Until every service of every node has heard that the cluster is unsealed. Raises AssertionError."""
        for node in range(3):
            with self.rest(self.root_token, node) as rest:
                for path in _OF_EACH_SERVICE:
                    eventually(seconds, rest.call, "GET", path)

    def rest(self, token: str = "", node: int = 0) -> RestClient:
        return self.cluster.rest(token, node, self.patience)

    def grpc(self, token: str = "", node: int = 0) -> GrpcClient:
        return self.cluster.grpc(token, node, self.patience)

    def token(self, rules: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """A new token under a new policy of these rules: the answer of `POST /v1/tokens`."""
        name = f"scenario-{next(_fresh)}-{time.time_ns():x}"
        with self.rest(self.root_token) as root:
            root.call("PUT", f"/v1/policies/{name}", {"rules": rules})
            return root.call("POST", "/v1/tokens", {"policies": [name], **fields})

    def partitioned(self) -> tuple[Cluster, Lab]:
        """Another three nodes, each on a host of its own that can be cut off: made when first needed.

        Raises NoNamespaces where there can be none.
        """
        if self._hosts is None:
            lab = Lab()
            with contextlib.ExitStack() as undone:
                undone.enter_context(lab)
                self._hosts = Cluster.start(3, hosts=lab.hosts()), lab
                undone.pop_all()
        return self._hosts

    def stop(self) -> None:
        if self._hosts is not None:
            cluster, lab = self._hosts
            cluster.stop()
            lab.__exit__(None, None, None)
        if self._cluster is not None:
            self._cluster.stop()
