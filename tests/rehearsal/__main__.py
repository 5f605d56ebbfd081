"""`python -m tests.rehearsal [dev|prod|prod-cert-manager …] [--short | --by-hand]`: a row for each step.

Exit 0 when everything held, 1 when something did not, 2 when this machine cannot rehearse (said on stderr).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.rehearsal import by_hand, outer
from tests.rehearsal.node.etcd35 import etcd_version
from tests.rehearsal.scene import Scene
from tests.rehearsal.stage import Stage
from tests.rehearsal.steps.plan import PLANS, SHORT, Step

OVERLAYS = ("dev", "prod", "prod-cert-manager")
_PATIENCE, _PATIENCE_SHORT = 300.0, 90.0  # seconds
_TAIL = 15  # lines of each log that are shown


def main() -> int:
    """The exit status."""
    options = _options()
    if not outer.is_inside():
        return _outside(options)
    (overlay,) = options.overlays
    logs = Path(options.logs) if options.logs else outer.PLACE / "logs"
    stage = Stage(outer.PLACE, logs, cert_manager=overlay == "prod-cert-manager")
    if etcd_version() < (3, 6, 0):
        version = ".".join(map(str, etcd_version()))
        print(f"notice: the manifests are for etcd 3.6, here is {version}: one flag is spelt differently")
    if options.by_hand:
        by_hand.offer(stage)
        sys.stdout.flush()
        os._exit(0)
    scene = Scene(stage, overlay, _PATIENCE_SHORT if options.short else _PATIENCE)
    held = True
    for step in SHORT if options.short else PLANS[overlay]:
        held = _run(step, scene) and held
        if not held and not options.go_on:
            break
    scene.close()
    sys.stdout.flush()
    os._exit(0 if held else 1)  # threads of the cluster run still, and end with this process


def _outside(options: argparse.Namespace) -> int:
    """Each overlay in namespaces of its own, one after the other."""
    status = 0
    for overlay in options.overlays:
        words = [overlay, *(["--short"] if options.short else [])]
        words += ["--go-on"] if options.go_on else []
        words += ["--by-hand"] if options.by_hand else []
        words += ["--logs", str(Path(options.logs, overlay).resolve())] if options.logs else []
        try:
            command, environment = outer.command(words)
        except outer.CannotRehearse as error:
            print(f"rehearsal: {error}", file=sys.stderr)
            return 2
        if options.by_hand:
            return by_hand.run(command, environment)
        print(f"rehearsal of {overlay}", flush=True)
        status = max(status, subprocess.run(command, env=environment, check=False).returncode)
    print("rehearsal: all held" if status == 0 else "rehearsal: FAILED")
    return status


def _run(step: Step, scene: Scene) -> bool:
    begun = time.monotonic()
    try:
        remark = step.run(scene)
    except Exception as error:
        _row(step, "FAILED", begun, "")
        print(textwrap.indent(f"{type(error).__name__}: {error}".strip(), "    "))
        _show(scene.stage)
        return False
    problems = scene.stage.problems()
    if problems:
        _row(step, "NO VERDICT", begun, "")
        print(textwrap.indent("the rehearsal itself failed:\n" + "\n".join(problems), "    "))
        return False
    _row(step, "passed", begun, remark or "")
    return True


def _row(step: Step, outcome: str, begun: float, remark: str) -> None:
    took = f"{time.monotonic() - begun:6.1f} s"
    text = f"{step.title}" + (f" [{remark}]" if remark else "")
    first, *rest = textwrap.wrap(text, 96)
    print(f"  {outcome:<10} {took}  {first}")
    for line in rest:
        print(" " * 24 + line)
    sys.stdout.flush()


def _show(stage: Stage) -> None:
    """What an operator would look at: the pods, and the ends of the logs of those that are not ready."""
    for pod in stage.store.list("pods"):
        status = pod["status"]
        states = status.get("containerStatuses", ())
        ready = all(one["ready"] for one in states) and states
        said = f"{status['phase']} {status.get('message', '')}"
        restarts = sum(one["restartCount"] for one in states)
        print(f"    {pod['metadata']['name']:<44} {'ready' if ready else 'NOT READY'} {restarts} {said}")
    for file in sorted(stage.logs.glob("*.log")):
        found = stage.store.find("pods", "strongbox", file.name.split(".")[0])
        states = (found or {}).get("status", {}).get("containerStatuses", ())
        if found is not None and not (states and all(one["ready"] for one in states)):
            lines = file.read_text(errors="replace").splitlines()[-_TAIL:]
            print(f"    --- {file.name}\n" + textwrap.indent("\n".join(lines), "    "))
    for problem in stage.problems():
        print(problem)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.rehearsal", description=__doc__)
    parser.add_argument("overlays", nargs="*", choices=[*OVERLAYS, []], help="all of them by default")
    parser.add_argument("--short", action="store_true", help="to a first secret only")
    parser.add_argument("--go-on", action="store_true", help="do the other steps too when one has failed")
    parser.add_argument("--by-hand", action="store_true", help="an empty cluster, and how to get into it")
    parser.add_argument("--logs", default="", help="keep the pods' logs in this folder")
    options = parser.parse_args()
    if options.by_hand and len(options.overlays) != 1:
        parser.error("--by-hand: one overlay (cert-manager is there for prod-cert-manager only)")
    options.overlays = options.overlays or list(OVERLAYS)
    return options


if __name__ == "__main__":
    sys.exit(main())
