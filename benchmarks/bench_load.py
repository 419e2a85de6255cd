"""Shard-load data: one compiled simulation and windows cut when read, against a Python loop that writes every window.

Run: python -m benchmarks.bench_load [--shards 1000] [--steps 43200] [--workers 2]
"""

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measure import print_setting, print_table
from datagen.sharding import generate_load
from nerv_fl.rng import stream

NAIVE_STEPS = 20_000
WINDOW = 60
METRICS = 10


@dataclass(frozen=True)
class Cost:
    """What making a file took: shard-minutes, seconds, bytes on disk, and peak memory of a process, MB."""

    steps: int
    seconds: float
    size: int
    peak_mb: float


def naive(path: Path, steps: int) -> None:
    """Simulate one shard in a Python loop, and write each window of it: a group a shard, as the plain plan goes."""
    rng = stream(0, "naive")
    rows, queue = [], 0.0
    for minute in range(steps):
        use = (0.6 + 0.2 * math.sin(2 * math.pi * minute / 1440)) * math.exp(rng.normal(0, 0.08))
        arrived = rng.poisson(600 * 60 * use)
        served = min(queue + arrived, 600 * 60)
        queue += arrived - served
        mix = rng.dirichlet([60, 15])
        cpu, mem = min(100.0, 100 * served / 36_000 + rng.normal(0, 1.5)), rng.normal(50, 1)
        cross, accounts = rng.normal(0.2, 0.02), rng.poisson(served / 3)
        rows.append(np.array([served / 60, queue, cpu, mem, cross, *mix, arrived * 40, served * 30, accounts]))
    windows = [np.stack(rows[end - WINDOW : end]) for end in range(WINDOW, steps + 1)]
    with h5py.File(path, "w") as file:
        file.create_group("shard_0").create_dataset("windows", data=np.stack(windows), compression="gzip")


def ours(path: Path, size: tuple[int, int, int]) -> None:
    """Write a load file of (shards, steps), with a number of workers."""
    shards, steps, workers = size
    generate_load(path, shards=shards, steps=steps, seed=0, workers=workers)


def measure(make: Callable[[], None], path: Path, *, steps: int) -> Cost:
    """Make a file, and return what it took; to be called in a fresh process."""
    start = time.perf_counter()
    make()
    seconds = time.perf_counter() - start
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Cost(steps=steps, seconds=seconds, size=path.stat().st_size, peak_mb=peak / 1024)


def measure_naive(path: Path) -> Cost:
    """Measure the baseline."""
    return measure(lambda: naive(path, NAIVE_STEPS), path, steps=NAIVE_STEPS)


def measure_ours(path: Path, size: tuple[int, int, int]) -> Cost:
    """Measure ours; a first small file has the simulation compiled."""
    ours(path, (1, 10, 1))
    return measure(lambda: ours(path, size), path, steps=size[0] * size[1])


def main() -> None:
    """Measure both in processes of their own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=43_200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    size = (options.shards, options.steps, options.workers)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        costs = {}
        for name, call, arguments in (
            ("every window written, Python loop, 1 shard", measure_naive, ()),
            (f"generate_load, {size[0]} shards, {size[2]} workers", measure_ours, (size,)),
        ):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                costs[name] = pool.submit(call, Path(folder) / "file.h5", *arguments).result()
    print_setting("Shard-load data, one process a worker", packages=["numpy", "numba", "h5py", "deflate"])
    base = next(iter(costs.values()))
    print_table(
        ["", "shard-minutes", "s", "shard-minutes/s", "ratio", "bytes/shard-minute", "MB on disk", "peak MB a process"],
        [
            [
                name,
                f"{cost.steps:,}",
                f"{cost.seconds:.1f}",
                f"{cost.steps / cost.seconds:,.0f}",
                f"{cost.steps / cost.seconds / (base.steps / base.seconds):.1f}",
                f"{cost.size / cost.steps:.1f}",
                f"{cost.size / 1e6:.0f}",
                f"{cost.peak_mb:.0f}",
            ]
            for name, cost in costs.items()
        ],
    )


if __name__ == "__main__":
    main()
