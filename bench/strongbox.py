"""StrongBox as it is run locally, through its gateways, with a token limited by a policy."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import httpx

from bench.load import Address
from bench.system import READ_PATHS, Work, body
from tests.support.cluster import Cluster

_ROOT = Path(__file__).resolve().parents[1]
_RULES = [{"path": "secret/bench/*", "capabilities": ["read", "write"]}]


class StrongBox:
    """A cluster of `nodes`, initialised, unsealed, filled."""

    name = "StrongBox"

    def __init__(self, nodes: int) -> None:
        self.version = _version()
        self._cluster = Cluster.start(nodes)
        try:
            self.headers = {"authorization": f"Bearer {self._prepare()}"}
            self.work = Work.under("/v1/secrets", self.headers)
        except BaseException:
            self.stop()
            raise

    @property
    def addresses(self) -> list[Address]:
        """Every gateway: any node serves any request."""
        return [Address.parse(url) for url in self._cluster.gateways]

    @property
    def cluster(self) -> Cluster:
        """The cluster itself, for what only StrongBox has."""
        return self._cluster

    @property
    def pids(self) -> list[int]:
        """etcd's, the services' and the gateways'."""
        return self._cluster.pids

    def stop(self) -> None:
        """End every process and delete the data."""
        self._cluster.stop()

    def _prepare(self) -> str:
        with self._cluster.rest(self._cluster.root_token) as root:
            root.call("PUT", "/v1/policies/bench", {"rules": _RULES})
            token = str(root.call("POST", "/v1/tokens", {"policies": ["bench"], "ttl": "24h"})["token"])
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        with httpx.Client(base_url=self._cluster.gateways[0], headers=headers, timeout=10) as client:
            for path in READ_PATHS:
                client.put(f"/v1/secrets/{path}", content=body()).raise_for_status()
        return token


def _version() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=_ROOT
    ).stdout.strip()  # fmt: skip
    return f"StrongBox {project['version']} ({commit or 'no git'})"
