"""`python -m bench`: reads and writes through the gateway, StrongBox beside a real OpenBao.

Interleaved rounds on one machine, the load generator on it too; both systems audit every request, limit the
token by a policy, and keep what they acknowledged on disk. Prints a table, or JSON with `-o json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict

from bench import audit, credentials, leases, report
from bench.openbao import OpenBao
from bench.rounds import Figure, Idle, Plan, measure, measure_idle
from bench.strongbox import StrongBox
from bench.system import System

_SYSTEMS: dict[str, Callable[[int], System]] = {"strongbox": StrongBox, "openbao": OpenBao}


def main() -> int:
    """Exit 0; 1 when a request failed, since such figures mean nothing."""
    options = _options()
    figures: list[Figure] = []
    idles: list[Idle] = []
    versions: set[str] = set()
    plan = Plan(options.rounds, options.seconds, options.spread)
    out = sys.stderr if options.output == "json" else sys.stdout
    chain: list[audit.Figure] = []
    tell = report.heading(out)
    for nodes in options.nodes:
        with contextlib.ExitStack() as running:
            systems = [_started(running, make, nodes) for make in options.systems]
            versions |= {system.version for system in systems}
            chain += [
                figure for system in systems if isinstance(system, StrongBox)
                for figure in audit.measure(system.cluster, options.entries, audit.heading(out))
            ]  # fmt: skip
            if options.audit_only:
                continue
            idles += [measure_idle(system, nodes, options.seconds) for system in systems]
            figures += measure(systems, nodes, plan, tell)
    if options.output == "json":
        print(
            json.dumps(
                _as_json(figures, idles, versions) | {"audit": [asdict(one) for one in chain]}, indent=2
            )
        )
    else:
        print(report.closing(figures, idles, versions))
        if not options.system:
            print(credentials.run(options.rounds, min(options.seconds, 4.0)))
            print("leases stored, one node", leases.heading(), sep="\n")
            leases.measure(
                leases.SHORT, options.seconds, lambda figure: print(leases.row(figure), flush=True)
            )
    return 1 if any(figure.failures for figure in figures) else 0


def _started(running: contextlib.ExitStack, make: Callable[[int], System], nodes: int) -> System:
    system = make(nodes)
    running.callback(system.stop)
    return system


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each system for each figure")
    parser.add_argument("--only", default="1,3", help="cluster sizes, such as 1,3")
    parser.add_argument("--system", choices=sorted(_SYSTEMS), help="one system alone")
    parser.add_argument("--spread", action="store_true", help="connections over all nodes, not one alone")
    parser.add_argument("--quick", action="store_true", help="one round of two seconds: does it work?")
    parser.add_argument("--entries", type=int, default=100_000, help="length of the measured audit log")
    parser.add_argument("--audit-only", action="store_true", help="the figures of the audit chain alone")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.entries = 2.0, 1, 10_000
    options.nodes = [int(number) for number in options.only.split(",")]
    options.systems = [_SYSTEMS[options.system]] if options.system else list(_SYSTEMS.values())
    return options


def _as_json(figures: list[Figure], idles: list[Idle], versions: set[str]) -> dict[str, object]:
    return {
        "versions": sorted(versions),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": sys.version.split()[0]},
        "figures": [figure.as_json() for figure in figures],
        "idle": [asdict(idle) for idle in idles],
    }


if __name__ == "__main__":
    sys.exit(main())
