"""Consensus races: the compiled simulation, against the same functions uncompiled, as a first script would write them.

Run: python -m benchmarks.bench_races [--shards 800] [--workers 2]
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure import print_setting, print_table
from datagen.consensus.generate import RaceShape, generate_races

NAIVE_SHARDS = 2


def measure(shards: int, workers: int) -> tuple[int, float, int]:
    """Return races, seconds and bytes of a file of so many shards; to be called in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "races.h5", RaceShape(shards=shards)
        generate_races(path, RaceShape(shards=1, races=4))  # compile, or load what was compiled before
        start = time.perf_counter()
        generate_races(path, shape, workers=workers)
        return shards * shape.races, time.perf_counter() - start, path.stat().st_size


def main() -> None:
    """Measure both in processes of their own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=800)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found = {}
    for name, shards, workers, interpreted in (
        ("the same functions in plain Python", NAIVE_SHARDS, 1, "1"),
        (f"generate_races, workers: {options.workers}", options.shards, options.workers, "0"),
    ):
        os.environ["NUMBA_DISABLE_JIT"] = interpreted
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[name] = pool.submit(measure, shards, workers).result()
    print_setting("Consensus races, one process a worker", packages=["numpy", "numba", "h5py", "deflate"])
    base = next(races / seconds for races, seconds, _ in found.values())
    print_table(
        ["", "races", "s", "races/s", "ratio", "bytes/race"],
        [
            [
                name,
                f"{races:,}",
                f"{seconds:.1f}",
                f"{races / seconds:,.0f}",
                f"{races / seconds / base:.1f}",
                f"{size / races:.0f}",
            ]
            for name, (races, seconds, size) in found.items()
        ],
    )


if __name__ == "__main__":
    main()
