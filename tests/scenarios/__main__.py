"""`python -m tests.scenarios [--short] [--only S0,S1]`: a row for each check, then `N passed, N failed`.

Exit 0 when every check that was run holds, 1 when one does not, 2 for a wrong call. Checks of what is not
built yet are listed as that, and are neither passed nor failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
import time
import traceback

from tests.scenarios.checks import CHECKS, Check
from tests.scenarios.world import World


def main() -> int:
    """Run them in their order, on one cluster."""
    options = _options()
    chosen = [check for check in CHECKS if not options.only or check.scenario in options.only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # then the cluster is stopped as ever
    world = World(short=options.short)
    results: list[bool] = []
    try:
        for check in chosen:
            if check.run is None:
                _row(check, "not built yet", 0.0)
            else:
                results.append(_run(check, world, options.verbose))
    finally:
        world.stop()
    if world.patience.spent:
        print(f"the machine was too busy {world.patience.spent} times: a 503 was asked again")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


def _run(check: Check, world: World, verbose: bool) -> bool:
    assert check.run is not None
    started = time.monotonic()
    try:
        remark = check.run(world)
    except Exception as error:
        _row(check, "FAILED", time.monotonic() - started)
        print(textwrap.indent(str(error).strip() or type(error).__name__, "       "), flush=True)
        if verbose:
            traceback.print_exc()
        return False
    _row(check, "passed", time.monotonic() - started, remark or "")
    return True


def _row(check: Check, outcome: str, seconds: float, remark: str = "") -> None:
    label = f"{check.scenario}.{check.number}"
    took = f"{seconds:6.1f} s" if seconds else " " * 8
    first, *rest = textwrap.wrap(f"{check.title}: {check.text}" + (f" [{remark}]" if remark else ""), 78)
    print(f"{label:<5} {outcome:<13} {took}  {first}")
    for line in rest:
        print(" " * 31 + line)
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.scenarios")
    parser.add_argument("--short", action="store_true", help="fewer repetitions; what `make test` runs")
    parser.add_argument("--only", default="", help="scenarios, such as S0,S1")
    parser.add_argument("--verbose", action="store_true", help="a failed check's traceback")
    options = parser.parse_args()
    options.only = {name.strip().upper() for name in options.only.split(",") if name.strip()}
    unknown = options.only - {check.scenario for check in CHECKS}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
