"""The manifests are for etcd 3.6; where only 3.5 can be had, its spelling of the same flags is used."""

from __future__ import annotations

import subprocess
from functools import cache

from tests.rehearsal.control.store import Object
from tests.support.etcd import etcd_binary

_SPELT = {"--feature-gates=InitialCorruptCheck=true": "--experimental-initial-corrupt-check=true"}


@cache
def etcd_version() -> tuple[int, int, int]:
    """Of the binary that is run."""
    told = subprocess.run(
        [str(etcd_binary()), "--version"], capture_output=True, text=True, check=True, timeout=10
    )
    major, minor, patch = told.stdout.split("\n")[0].rpartition(" ")[2].split(".")
    return int(major), int(minor), int(patch.partition("-")[0])


def for_this_etcd(container: Object) -> Object:
    """The container as it is, or with 3.5's flags."""
    if container["name"] != "etcd" or etcd_version() >= (3, 6, 0):
        return container
    return {**container, "args": [_SPELT.get(word, word) for word in container["args"]]}
