"""How the benchmarks measure: CPU time on one thread, the candidates in turn, medians; and how they print it."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

MILLI = 1000.0


def median_cpu_ms(
    candidates: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """Return the median CPU time of each candidate, in milliseconds.

    Candidates take turns, so a slow spell of the machine meets all of them; CPU time leaves out other processes.

    Args:
        candidates: What to call, by name.
        repeats: Measured calls of each.
        warm_up: Calls of each before these.
    """
    import torch  # noqa: PLC0415 (seconds, which worker processes that import a benchmark need not spend)

    torch.set_num_threads(1)
    times_ms: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + repeats):
        for name, call in candidates.items():
            start = time.process_time()
            call()
            if turn >= warm_up:
                times_ms[name].append(MILLI * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in times_ms.items()}


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, the first column to the left and the others to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (header, rule, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(f"| {' | '.join(cells)} |")


def print_setting(what: str, *, packages: Sequence[str], threads: str = "one thread") -> None:
    """Print what was measured, and on which machine and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{what}\n{_processor()}, {threads}; Python {platform.python_version()}, {versions}\n")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
