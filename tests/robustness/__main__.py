"""`python -m tests.robustness [--for 1h] [--seed N] [--only KIND,…] [--attacks 1m] [--plant BUG]`: faults.

Each kind of fault once, as many as fit into 390 s, or for as long as `--for` says. Prints every fault as it
happens, then operations by outcome, the longest silence by kind, and violations. Exit 0: none, and enough was
done; 1: a violation, or too little was done; 2: it cannot be run here (root, namespaces, a sound etcd).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import time
import traceback

from strongbox.dev.processes.etcd import find_etcd
from tests.robustness import ending, others, report
from tests.robustness.ledger import wall_ahead
from tests.robustness.run import SOAK, Run, strike
from tests.robustness.stage import Stage
from tests.support import lab

_ATTACKS = "attacks"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main() -> int:
    """The exit status."""
    options = _options()
    refusal = _refusal()
    if refusal:
        print(f"tests.robustness cannot run here: {refusal}", file=sys.stderr)
        return 2
    if not options.inside:
        # Mounts of its own: whatever becomes of this process, none of them is left.
        unshare = shutil.which("unshare")
        assert unshare is not None
        again = [sys.executable, "-m", "tests.robustness", *sys.argv[1:], "--inside"]
        os.execv(unshare, [unshare, "--mount", *again])
    seed = options.seed if options.seed is not None else int(time.time()) % 100_000
    print(f"seed {seed}" + (f", planted bug: {options.plant}" if options.plant else ""), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # then the stage is struck as ever
    run, violations, seen = Run(seed), list[str](), list[str]()
    try:
        with Stage(options.plant) as stage:
            seen = stage.violations
            violations += ending.play(
                stage,
                run,
                lambda: strike(stage, run, options.seconds, options.only, _say),
                _say,
                attacks=_attacks(options),
            )
            violations += ending.enough(stage, run, options.seconds, partly=bool(options.only))
    except Exception as error:
        traceback.print_exc()
        violations.append(f"the run itself failed: {type(error).__name__}: {error}")
        violations += [*run.seen, *seen]  # what was met by then is no less wrong
    set_by = wall_ahead() - run.wall_ahead
    told = report.Told(run.seconds, run.slack.worst, set_by, run.unsealed)
    for line in report.lines(run.history, run.struck, violations, told):
        _say(line)
    return 1 if violations else 0


def _attacks(options: argparse.Namespace) -> float:
    """Seconds of each one caller's attack: those who choose faults choose attacks as well."""
    if options.attacks:
        return float(options.attacks)
    if options.only and _ATTACKS not in options.only.split(","):
        return 0.0
    return others.SOAK_SECONDS if options.seconds >= SOAK else others.SECONDS


def _refusal() -> str:
    try:
        lab.require()
        etcd = find_etcd()
    except (lab.NoNamespaces, LookupError) as error:
        return str(error)
    if not etcd.is_sound:
        return f"etcd >= 3.5.28 is needed, older ones lose writes; `make etcd` fetches one (found: {etcd})"
    return ""


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.robustness", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--for", dest="seconds", type=_seconds, default=0.0, metavar="T", help="90s, 10m, 1h …"
    )
    parser.add_argument("--seed", type=int, help="which nodes are struck, in which order")
    parser.add_argument(
        "--only", default="", help="kinds of faults that contain one of these words; `attacks`"
    )
    parser.add_argument(
        "--attacks", type=_seconds, default=0.0, metavar="T", help="so long each (else 4s; 20s in long runs)"
    )
    parser.add_argument("--plant", default="", help="a module of tests.robustness.planted: must be caught")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no duration")
    return float(found[1]) * _UNITS[found[2] or "s"]


if __name__ == "__main__":
    sys.exit(main())
