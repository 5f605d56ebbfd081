"""What the fault suite brings into every process of the cluster it attacks, from outside, by PYTHONPATH.

* The node's wall clock: DIR/<node>/clock-offset holds seconds that are added to `time.time_ns`, which is what
  strongbox.clock reads. (Not to `time.time`: gRPC makes deadlines of it and a C clock that would stay.)
* Passwords of database credentials begin as the suite's values do, so that one search finds any of them:
  in the lease service `secrets.token_urlsafe`, of which they are made, gives 16 known characters first.
* A planted bug: DIR/plant names a module of tests.robustness.planted, which breaks one rule of the product.

The product knows of none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_data = os.environ.get("STRONGBOX_DATA_DIR", "")


def _skew(node: Path) -> None:
    import time

    real_ns, now = time.time_ns, time.monotonic
    known = [0.0, 0.0]  # the offset, and when it was looked at

    def offset() -> float:
        if now() - known[1] > 0.05:
            known[1] = now()
            try:
                known[0] = float((node / "clock-offset").read_text())
            except (OSError, ValueError):
                known[0] = 0.0
        return known[0]

    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def _mark_passwords() -> None:
    import secrets

    random, known = secrets.token_urlsafe, "canary-7f3e9a1c-"  # tests.robustness.traffic.asking.CANARY
    secrets.token_urlsafe = lambda size=32: known + random(size)[len(known) :]  # as long as ever


def _plant(cluster: Path) -> None:
    import importlib.util

    try:
        name = (cluster / "plant").read_text().strip()
    except OSError:
        return
    path = Path(__file__).parents[1] / "planted" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"planted_{name}", path)
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, str(Path(__file__).parents[3]))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if _data:
    _skew(Path(_data).parent)
    _plant(Path(_data).parents[1])
    if Path(_data).name == "lease":
        _mark_passwords()
