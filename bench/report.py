"""The table of figures, and the ratios beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

from bench.rounds import Figure, Idle

_ROW = "{:<10} {:>5} {:<7} {:>5} {:>9} {:>9} {:>9} {:>9}  {}"


def heading(out: TextIO) -> Callable[[Figure], None]:
    """Print the head of the table to `out`; the function it returns prints a row."""
    print(
        _ROW.format("system", "nodes", "kind", "conns", "per s", "p50 ms", "p99 ms", "CPU s/1k", ""), file=out
    )
    return lambda figure: print(_row(figure), file=out, flush=True)


def _row(figure: Figure) -> str:
    failed = f"FAILED {figure.failures}" if figure.failures else ""
    return _ROW.format(
        figure.system, figure.nodes, figure.kind, figure.connections, f"{figure.rate:.0f}",
        f"{figure.p50_ms:.2f}", f"{figure.p99_ms:.2f}", f"{figure.cpu_per_thousand:.2f}", failed,
    )  # fmt: skip


def closing(figures: list[Figure], idles: list[Idle], versions: Iterable[str]) -> str:
    """Ratios, idle costs and versions."""
    lines = ["", *_ratios(figures), ""]
    lines += [
        f"idle: {idle.system}, {idle.nodes} node(s): {100 * idle.cpu:.0f} % of a CPU, "
        f"{idle.memory_mib:.0f} MiB in {idle.processes} processes"
        for idle in idles
    ]
    return "\n".join([*lines, *sorted(versions)])


def _ratios(figures: list[Figure]) -> list[str]:
    """Our rate, latency and CPU over theirs: above 1 is good for the first, bad for the others."""
    theirs = {(f.nodes, f.kind, f.connections): f for f in figures if f.system == "OpenBao"}
    lines = []
    for ours in (figure for figure in figures if figure.system == "StrongBox"):
        other = theirs.get((ours.nodes, ours.kind, ours.connections))
        if other and other.rate and other.cpu_per_thousand:
            lines.append(
                f"StrongBox / OpenBao, {ours.nodes} node(s), {ours.kind}, {ours.connections} connection(s): "
                f"rate {ours.rate / other.rate:.2f}, p50 {ours.p50_ms / other.p50_ms:.2f}, "
                f"p99 {ours.p99_ms / other.p99_ms:.2f}, "
                f"CPU {ours.cpu_per_thousand / other.cpu_per_thousand:.2f}"
            )
    return lines
