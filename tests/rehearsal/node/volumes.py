"""A pod's volumes as folders: secrets and the like are files that change under it, as the kubelet does it.

<volume>/..2026_11_30_12_00_00.1/tls.crt     the files
<volume>/..data -> ..2026_11_30_12_00_00.1   replaced by rename, so all files change at once
<volume>/tls.crt -> ..data/tls.crt
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.rehearsal.control.store import Object, Store
from tests.rehearsal.control.tokens import Tokens
from tests.rehearsal.unknown import NotRehearsed

File = tuple[bytes, int]  # what is in it, its mode
_ROTATED = 0.8  # of a token's life


class NotThere(Exception):
    """A volume's source is not there (yet): the pod waits."""


class Volumes:
    """Those of one pod, below `place`. Claims are folders below `claims`, and stay."""

    def __init__(self, store: Store, tokens: Tokens, pod: Object, place: Path, claims: Path) -> None:
        self._store, self._tokens, self._pod = store, tokens, pod
        self._place, self._claims = place, claims
        self._shown: dict[str, dict[str, File]] = {}
        self._token: dict[str, tuple[float, str]] = {}
        self._number = 0

    def mount(self) -> dict[str, Path]:
        """Every volume's folder. Raises NotThere."""
        found = {}
        for volume in self._pod["spec"]["volumes"]:
            found[volume["name"]] = self._folder(volume)
        self.refresh()
        return found

    def refresh(self) -> None:
        """Bring files up to date. Raises NotThere at first; later what was there stays."""
        for volume in self._pod["spec"]["volumes"]:
            if "emptyDir" not in volume and "persistentVolumeClaim" not in volume:
                files = dict(self._files(volume))
                if files != self._shown.get(volume["name"]):
                    self._show(self._place / volume["name"], files)
                    self._shown[volume["name"]] = files

    def _folder(self, volume: Object) -> Path:
        group = self._pod["spec"].get("securityContext", {}).get("fsGroup")
        if "persistentVolumeClaim" in volume:
            place: Path = self._claims / volume["persistentVolumeClaim"]["claimName"]
            mode = 0o755
        else:
            place = self._place / volume["name"]
            mode = 0o777 if "emptyDir" in volume else 0o755
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(mode)
        if group is not None:
            _give(place, group, mode | 0o2070)
        return place

    def _show(self, place: Path, files: dict[str, File]) -> None:
        self._number += 1
        stamp = time.strftime("..%Y_%m_%d_%H_%M_%S", time.gmtime()) + f".{self._number}"
        group = self._pod["spec"].get("securityContext", {}).get("fsGroup")
        for name, (raw, mode) in files.items():
            file = place / stamp / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(raw)
            file.chmod(mode)
            if group is not None:
                _give(file, group, mode | 0o440)
        (place / stamp).mkdir(exist_ok=True)
        old = (place / "..data").readlink() if (place / "..data").is_symlink() else None
        (place / "..data_tmp").symlink_to(stamp)
        (place / "..data_tmp").rename(place / "..data")
        tops = {Path(name).parts[0] for name in files}
        for top in tops:
            if not (place / top).is_symlink():
                (place / top).symlink_to(f"..data/{top}")
        for entry in place.iterdir():
            if not entry.name.startswith("..") and entry.name not in tops:
                entry.unlink()
        if old is not None:
            shutil.rmtree(place / old)

    def _files(self, volume: Object) -> Iterator[tuple[str, File]]:
        """Raises NotThere, NotRehearsed."""
        if "projected" in volume:
            mode = volume["projected"].get("defaultMode", 0o644)
            for source in volume["projected"]["sources"]:
                ((kind, told),) = source.items()
                yield from self._source(kind, told, mode)
            return
        kind = next(key for key in volume if key != "name")
        told = dict(volume[kind])
        told["name"] = told.pop("secretName", told.get("name"))
        yield from self._source(kind, told, told.get("defaultMode", 0o644))

    def _source(self, kind: str, told: Object, mode: int) -> Iterator[tuple[str, File]]:
        sources: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
            "secret": lambda: self._keyed("secrets", told, base64.b64decode),
            "configMap": lambda: self._keyed("configmaps", told, str.encode),
            "serviceAccountToken": lambda: self._account(told),
            "downwardAPI": lambda: self._downward(told),
        }
        if kind not in sources:
            raise NotRehearsed(f"volumes of {kind} are not rehearsed")
        modes = {item["path"]: item.get("mode", mode) for item in told.get("items", ())}
        for name, raw in sources[kind]():
            yield name, (raw, modes.get(name, mode))

    def _keyed(
        self, plural: str, told: Object, decode: Callable[[Any], bytes]
    ) -> Iterator[tuple[str, bytes]]:
        found = self._store.find(plural, self._pod["metadata"]["namespace"], told["name"])
        if found is None:
            if told.get("optional"):
                return
            raise NotThere(f"{plural} {told['name']}")
        data = found.get("data") or {}
        for item in told.get("items") or [{"key": key, "path": key} for key in data]:
            if item["key"] in data:
                yield item["path"], decode(data[item["key"]])
            elif not told.get("optional"):
                raise NotThere(f"{plural} {told['name']}: {item['key']}")

    def _account(self, told: Object) -> Iterator[tuple[str, bytes]]:
        seconds = float(told.get("expirationSeconds", 3600))
        renew, token = self._token.get(told["path"], (0.0, ""))
        if time.monotonic() >= renew:
            audiences = [told["audience"]] if "audience" in told else []
            metadata, account = self._pod["metadata"], self._pod["spec"]["serviceAccountName"]
            token = self._tokens.issue(metadata["namespace"], account, seconds, audiences, self._pod)
            self._token[told["path"]] = (time.monotonic() + seconds * _ROTATED, token)
        yield told["path"], token.encode()

    def _downward(self, told: Object) -> Iterator[tuple[str, bytes]]:
        for item in told["items"]:
            yield item["path"], field_of(self._pod, item["fieldRef"]["fieldPath"]).encode()


def field_of(pod: Object, path: str) -> str:
    """A `fieldRef`. Raises NotRehearsed for one that is not known here."""
    if path.startswith(("metadata.labels['", "metadata.annotations['")):
        kind, _, rest = path.removeprefix("metadata.").partition("['")
        return str(pod["metadata"].get(kind, {}).get(rest.removesuffix("']"), ""))
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": pod["status"].get("podIP", ""),
        "status.podIPs": pod["status"].get("podIP", ""),
    }
    if path not in fields:
        raise NotRehearsed(f"the field {path} is not rehearsed")
    return str(fields[path])


def _give(path: Path, group: int, mode: int) -> None:
    """As `fsGroup` has it: the group's, and readable (folders: writable) for it."""
    os.chown(path, -1, group)
    path.chmod(mode)
