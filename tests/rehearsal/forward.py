"""`kubectl port-forward service/NAME LOCAL:PORT`: to one ready pod of it, chosen once, as kubectl does it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rehearsal.node.endpoints import Backend
from tests.rehearsal.node.proxy import forward


def main(words: list[str]) -> int:
    """Serves until it is ended."""
    namespace = words[words.index("-n") + 1]
    name = next(word.partition("/")[2] for word in words if word.startswith(("service/", "svc/")))
    local, _, port = words[-1].partition(":")
    service = _get(namespace, "service", name)
    labels = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    pods = _get(namespace, "pods", "-l", labels)["items"]
    pod = next(
        pod
        for pod in pods
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    )
    told = next(one for one in service["spec"]["ports"] if one["port"] == int(port or local))
    ports = {
        one["name"]: one["containerPort"]
        for container in pod["spec"]["containers"]
        for one in container.get("ports", ())
    }
    target = told.get("targetPort", told["port"])
    backend = Backend("", pod["status"]["podIP"], ports)
    asyncio.run(_serve(int(local), backend, target))
    return 0


def _get(namespace: str, *words: str) -> Any:
    command = [str(Path(sys.executable).parent / "kubectl"), "-n", namespace, "get", *words, "-o", "json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


async def _serve(local: int, backend: Backend, target: str | int) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: forward([backend], target, reader, writer), "localhost", local
    )
    print(f"Forwarding from 127.0.0.1:{local} -> {target}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
