"""The measurements: interleaved rounds, so that other work of the machine slows both systems alike."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from bench import load
from bench.processes import cpu_seconds, resident_mib
from bench.system import System

CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians over the rounds. Rates per second, latencies in ms, CPU in seconds per thousand requests."""

    system: str
    nodes: int
    kind: str
    connections: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_per_thousand: float
    requests: int
    failures: dict[int, int]

    def as_json(self) -> dict[str, object]:
        """For `-o json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Idle:
    """What a system costs when nobody asks: CPU seconds per second, memory in MiB, processes."""

    system: str
    nodes: int
    cpu: float
    memory_mib: float
    processes: int


@dataclass(slots=True)
class _Round:
    measured: load.Measured
    cpu: float


def measure_idle(system: System, nodes: int, seconds: float) -> Idle:
    """Watch a system that is given nothing to do."""
    before, started = cpu_seconds(system.pids), time.monotonic()
    time.sleep(seconds)
    cpu = (cpu_seconds(system.pids) - before) / (time.monotonic() - started)
    return Idle(system.name, nodes, cpu, resident_mib(system.pids), len(system.pids))


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often; `spread` the connections over all addresses, or use the first alone."""

    rounds: int
    seconds: float
    spread: bool


def measure(
    systems: Sequence[System], nodes: int, plan: Plan, tell: Callable[[Figure], None]
) -> list[Figure]:
    """Every kind and number of connections, each system in turn in every round; `tell` hears each figure."""
    figures = []
    for kind in ("reads", "writes"):
        for connections in CONNECTIONS:
            for system, done in _interleaved(systems, kind, connections, plan):
                figures.append(_figure(system, nodes, kind, connections, done))
                tell(figures[-1])
    return figures


def _interleaved(
    systems: Sequence[System], kind: str, connections: int, plan: Plan
) -> list[tuple[System, list[_Round]]]:
    done: list[list[_Round]] = [[] for _ in systems]
    for number in range(plan.rounds):
        # Alternately first: the second inherits a warm machine, and the first one's dirty pages.
        order = range(len(systems)) if number % 2 == 0 else reversed(range(len(systems)))
        for index in order:
            done[index].append(_one(systems[index], kind, connections, plan))
    return list(zip(systems, done, strict=True))


def _one(system: System, kind: str, connections: int, plan: Plan) -> _Round:
    requests = system.work.reads if kind == "reads" else system.work.writes
    doors = system.addresses if plan.spread else system.addresses[:1]
    before = cpu_seconds(system.pids)
    measured = asyncio.run(load.run(doors, requests, connections, plan.seconds))
    return _Round(measured, cpu_seconds(system.pids) - before)


def _figure(system: System, nodes: int, kind: str, connections: int, done: list[_Round]) -> Figure:
    failures: dict[int, int] = {}
    for one in done:
        for status, count in one.measured.failures.items():
            failures[status] = failures.get(status, 0) + count
    requests = sum(len(one.measured.latencies) for one in done)
    return Figure(
        system=system.name, nodes=nodes, kind=kind, connections=connections,
        rate=statistics.median(one.measured.rate for one in done),
        p50_ms=1e3 * statistics.median(one.measured.quantile(0.50) for one in done),
        p99_ms=1e3 * statistics.median(one.measured.quantile(0.99) for one in done),
        cpu_per_thousand=1e3 * sum(one.cpu for one in done) / max(1, requests),
        requests=requests, failures=failures,
    )  # fmt: skip
