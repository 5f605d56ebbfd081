"""One container of a pod: what its process gets, its start and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.node.dns import search
from tests.rehearsal.node.images import Image
from tests.rehearsal.node.network import API_SERVER
from tests.rehearsal.node.volumes import NotThere, field_of
from tests.rehearsal.unknown import NotRehearsed

_LAUNCH = Path(__file__).with_name("launch.py")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_KNOWN = {
    "name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "ports", "startupProbe",
    "livenessProbe", "readinessProbe", "lifecycle", "resources", "securityContext", "volumeMounts",
    "terminationMessagePath", "terminationMessagePolicy", "restartPolicy", "workingDir",
}  # fmt: skip
_CAPABILITIES = {"NET_BIND_SERVICE": 10, "IPC_LOCK": 14}


@dataclass(frozen=True)
class Surroundings:
    """What the containers of a pod have in common."""

    store: Store
    pod: Object
    address: str
    network: str  # the name of its namespace
    volumes: dict[str, Path]
    place: Path  # for roots and the like
    logs: Path


class Process:
    """The process of a container, started."""

    def __init__(self, around: Surroundings, container: Object, image: Image) -> None:
        name = f"{around.pod['metadata']['name']}.{container['name']}"
        file = around.place / f"{container['name']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(specification(around, container, image)), encoding="utf-8")
        reading, writing = os.pipe()
        with (around.logs / f"{name}.log").open("ab") as log:
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCH), str(file), str(writing)],
                pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={},
            )  # fmt: skip
        os.close(writing)
        with os.fdopen(reading) as told:
            self.pid = int(told.read() or 0)  # 0: it did not come so far

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._launcher.poll()

    def signal(self, number: int) -> None:
        """Nothing when it has ended."""
        if self.pid and self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def end(self, seconds: float) -> bool:
        """SIGTERM, and SIGKILL after so long; whether it went by itself."""
        self.signal(signal.SIGTERM)
        ends = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > ends:
                self.signal(signal.SIGKILL)
                self._launcher.wait()
                return False
            time.sleep(0.02)
        return True


def specification(around: Surroundings, container: Object, image: Image) -> dict[str, Any]:
    """What launch.py is told. Raises NotThere, NotRehearsed for what is not rehearsed."""
    unknown = container.keys() - _KNOWN
    if unknown:
        raise NotRehearsed(f"{container['name']}: {sorted(unknown)} are not rehearsed")
    environment = _environment(around, container)
    command = container.get("command") or image.entrypoint
    arguments = container.get("args") or ([] if container.get("command") else image.command)
    mine = around.pod["spec"].get("securityContext", {}) | container.get("securityContext", {})
    user, group = (int(part) for part in image.user.split(":"))
    user, group = mine.get("runAsUser", user), mine.get("runAsGroup", group)
    if mine.get("runAsNonRoot") and user == 0:
        raise NotRehearsed(f"{container['name']}: runAsNonRoot, and its user is root")
    name = around.pod["metadata"]["name"]
    hosts = f"127.0.0.1 localhost\n{around.address} {name}\n"
    files = {
        "/etc/resolv.conf": search(around.pod["metadata"]["namespace"]),
        "/etc/hosts": hosts,
        "/etc/hostname": f"{name}\n",
        "/etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n",
        "/etc/group": "root:x:0:\n",
    }
    return {
        "network": around.network,
        "hostname": name,
        "root": str(around.place / "roots" / container["name"]),
        "binds": [*([here, there, True] for there, here in image.binds.items()), *_mounts(around, container)],
        "shell": image.shell,
        "files": files,
        "command": [expanded(word, environment) for word in [*command, *arguments]],
        "environment": {
            **image.environment, "HOME": "/", "HOSTNAME": name, "KUBERNETES_SERVICE_HOST": API_SERVER,
            "KUBERNETES_SERVICE_PORT": "443", **environment,
        },
        "folder": container.get("workingDir", image.folder),
        "user": user,
        "group": group,
        "groups": [mine["fsGroup"]] if "fsGroup" in mine else [],
        "kept": _kept(mine.get("capabilities", {})),
        "no_new_privileges": mine.get("allowPrivilegeEscalation") is False,
        "readonly": bool(mine.get("readOnlyRootFilesystem")),
    }  # fmt: skip


def _kept(told: Object) -> list[int]:
    """The bounding set: none after `drop: [ALL]`, but what is added."""
    if told.get("drop") != ["ALL"]:
        return [*range(64)]
    return [_CAPABILITIES[name] for name in told.get("add", ())]


def _mounts(around: Surroundings, container: Object) -> list[list[Any]]:
    found = []
    for mount in sorted(container.get("volumeMounts", ()), key=lambda mount: len(mount["mountPath"])):
        unknown = mount.keys() - {"name", "mountPath", "readOnly"}
        if unknown:
            raise NotRehearsed(f"volume mounts with {sorted(unknown)} are not rehearsed")
        here = str(around.volumes[mount["name"]])
        found.append([here, mount["mountPath"].rstrip("/"), bool(mount.get("readOnly"))])
    return found


def _environment(around: Surroundings, container: Object) -> dict[str, str]:
    namespace = around.pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= _source(around, namespace, source)
    for one in container.get("env", ()):
        if "valueFrom" not in one:
            found[one["name"]] = expanded(one.get("value", ""), found)
            continue
        ((kind, told),) = one["valueFrom"].items()
        if kind == "fieldRef":
            pod = {**around.pod, "status": around.pod["status"] | {"podIP": around.address}}
            found[one["name"]] = field_of(pod, told["fieldPath"])
        elif kind == "configMapKeyRef":
            found[one["name"]] = _source(around, namespace, {"configMapRef": told})[told["key"]]
        elif kind == "resourceFieldRef":
            found[one["name"]] = _resource(container, told)
        else:
            raise NotRehearsed(f"{one['name']}: {kind} is not rehearsed")
    return found


def _source(around: Surroundings, namespace: str, source: Object) -> dict[str, str]:
    if "configMapRef" not in source:
        raise NotRehearsed(f"envFrom {sorted(source)} is not rehearsed")
    told = source["configMapRef"]
    found = around.store.find("configmaps", namespace, told["name"])
    if found is None:
        if told.get("optional"):
            return {}
        raise NotThere(f"configmaps {told['name']}")
    prefix = source.get("prefix", "")
    return {prefix + key: value for key, value in (found.get("data") or {}).items()}


def _resource(container: Object, told: Object) -> str:
    kind, name = told["resource"].split(".")
    text = str(container["resources"][kind][name])
    units = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "m": 0.001}
    number = float(text.rstrip("KMGim")) * units.get(text.lstrip("0123456789."), 1)
    divisor = str(told.get("divisor", "1"))
    return str(int(-(-number // (units.get(divisor.lstrip("0123456789"), 1) or 1))))


def expanded(text: str, environment: dict[str, str]) -> str:
    """With `$(NAME)` replaced by what is known; `$$` is a dollar."""
    found: Callable[[re.Match[str]], str] = lambda m: environment.get(m[1], m[0]) if m[1] else "$"  # noqa: E731
    return _REFERENCE.sub(found, text)
