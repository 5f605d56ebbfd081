"""What the steps of a rehearsal have in common: the cluster, the documentation, its reader, the clients."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from typing import Any

from tests.rehearsal.control.deleting import is_ready
from tests.rehearsal.control.store import Object
from tests.rehearsal.documented import Page
from tests.rehearsal.door import Door, Load, Verdict, eventually
from tests.rehearsal.stage import Stage
from tests.rehearsal.terminal import Terminal
from tests.robustness.slack import Slack

ORDER = ("etcd", "seal", "audit", "lease", "auth", "kv", "gateway")
SECRET = "hunter2"
# What clients are told while etcd elects a leader (docs/failover.md: 503 or 504). In Kubernetes that begins
# after one to two seconds, which is as long as a read may take.
ELECTION = ("NO_QUORUM", "UNKNOWN_OUTCOME", "DEADLINE_EXCEEDED")

_BUSY = 1.5  # times the load that is a suite's own


class Broken(Exception):
    """A promise that does not hold."""


class Scene:
    """One overlay on one cluster. `patience`: seconds for all pods to be rolled out at first."""

    def __init__(self, stage: Stage, overlay: str, patience: float) -> None:
        self.stage, self.overlay, self.patience = stage, overlay, patience
        self.page = Page(overlay)
        self.terminal = Terminal(stage.work, stage.environment)
        self.door = Door(stage)
        self.shares: list[str] = []
        self.forwarding = ""  # the command, once it was given
        self.load: Load | None = None

    @property
    def count(self) -> int:
        """How many there are of each."""
        return 1 if self.overlay == "dev" else 3

    def forward_again(self) -> None:
        """The pod that was forwarded to is gone meanwhile: kubectl ends then, and is started again."""
        self.terminal.run(f"kill $! || true; wait $! || true\n{self.forwarding}")

    def kubectl(self, words: str, timeout: float = 60.0) -> str:
        return self.stage.shell(f"kubectl -n strongbox {words}", timeout)

    def unseal(self) -> None:
        """As two people would, each with a share, through the Service."""
        for share in self.shares[:2]:
            self.door.call("POST", "/v1/sys/unseal", {"share": share})

    def require_unsealed(self, nodes: int) -> None:
        """Raises TimeoutError when not so many seal replicas have the root key after a while."""

        def all_unsealed() -> bool:
            told = self.door.call("GET", "/v1/sys/health")
            found = [one for one in told.get("nodes", ()) if one.get("live") and not one.get("sealed")]
            return len(found) >= nodes

        eventually(60, all_unsealed, f"{nodes} unsealed nodes")

    def require_secret(self, seconds: float = 30.0) -> None:
        """The first secret is there. Raises TimeoutError."""
        path = "/v1/secrets/app/password"
        eventually(seconds, lambda: self.door.call("GET", path)["value"] == SECRET, "the first secret")

    def settled(self, workload: str, seconds: float = 120.0) -> None:
        """Until every pod of it is ready, and as many as there should be."""

        def ready() -> bool:
            return len(self.stage.pods(workload)) == len(self.ready(workload)) == self.count

        eventually(seconds, ready, f"{self.count} ready pods of {workload}")

    def ready(self, workload: str) -> list[Object]:
        """Its pods that are ready."""
        return [pod for pod in self.stage.pods(workload) if is_ready(pod)]

    def address(self, pod: str) -> str:
        """ "" for one that is not there."""
        found = self.stage.store.find("pods", "strongbox", pod) or {}
        return str(found.get("status", {}).get("podIP", ""))

    def kill(self, pod: str) -> None:
        """SIGKILL to every process of it, as for one that took too much memory."""
        for (name, _), process in self.stage.kubelet.processes.items():
            if name == pod:
                process.signal(signal.SIGKILL)

    def restarts(self) -> dict[str, int]:
        """By pod."""
        return {
            pod["metadata"]["name"]: sum(
                one.get("restartCount", 0) for one in pod["status"].get("containerStatuses", ())
            )
            for pod in self.stage.store.list("pods", "strongbox")
        }

    def judged(self, begun: float, allowed: Sequence[str] = ()) -> str:
        """What the clients saw since then, as a remark. Raises Broken for what is not allowed.

        On a machine whose cores others keep busy etcd's heartbeats come late: then one request of a thousand
        may be refused for that reason, and it is said.
        """
        assert self.load is not None
        time.sleep(1.0)
        verdict: Verdict = self.load.since(begun)
        wrong = [one for one in verdict.bad if not _is_for(one, allowed)]
        factor = Slack().now()
        late = [one for one in wrong if _is_for(one, ELECTION)]
        if factor > _BUSY and len(late) <= verdict.good / 1000:
            wrong = [one for one in wrong if one not in late]
        if wrong:
            shown = "\n".join(json.dumps(one) for one in wrong[:8])
            raise Broken(f"{verdict}\n{shown}")
        if verdict.good < 5:
            raise Broken(f"the clients hardly got through: {verdict}")
        busy = f" (the machine has {factor:.1f} times the load it should)" if late else ""
        return f"{verdict}{busy}"

    def close(self) -> None:
        if self.load is not None:
            self.load.close()
        self.terminal.close()


def _is_for(record: dict[str, Any], reasons: Sequence[str]) -> bool:
    return any(reason in record.get("why", "") for reason in reasons)
