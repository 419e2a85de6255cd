"""Hostile inputs at everything that reads what others wrote: how many a second, why they are refused, and memory.

Each input is drawn from a stream that names its target, so a finding can be drawn again. The first that is not refused
as documented, or accepted although altered, stops the run and is printed.

python -m benchmarks.bench_fuzz --inputs 1000000
"""

import argparse
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.fuzz_targets import ACCEPTED, TARGETS
from benchmarks.measure import print_setting, print_table
from nerv_fl import rng

SIGNED: Final = 0.02
"""Part of the inputs that a hostile node signs itself, which costs more than all else."""

SHOWN: Final = 3


def main() -> None:
    """Draw the inputs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="hostile inputs over all targets")
    parser.add_argument("--seed", type=int, default=7, help="of the streams that draw them")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for target in TARGETS.values():  # what is made once, is made now
        target(rng.stream(options.seed, "warm-up"))
    before_mb, rows, total, seconds = peak_mb(), [], 0, 0.0
    for name in TARGETS:
        num_inputs = share(name, options.inputs)
        outcomes, spent_s = fuzz(name, num_inputs, seed=options.seed)
        total, seconds = total + num_inputs, seconds + spent_s
        refusals = [f"{why} {count:,}" for why, count in outcomes.most_common() if why != ACCEPTED]
        more = f", {len(refusals) - SHOWN} more" if len(refusals) > SHOWN else ""
        rate = f"{num_inputs / spent_s:,.0f}"
        rows.append([name, f"{num_inputs:,}", rate, f"{outcomes[ACCEPTED]:,}", ", ".join(refusals[:SHOWN]) + more])
    print_setting(f"{total:,} hostile inputs of seed {options.seed}", packages=("cryptography",))
    print_table(["target", "inputs", "a second of CPU", "accepted", "refused"], rows)
    print(
        f"\n{total / seconds:,.0f} inputs a second; peak memory {peak_mb():.0f} MiB, {before_mb:.0f} before the first"
    )


def share(name: str, num_inputs: int) -> int:
    """Return how many of the inputs a target gets."""
    signed = max(1, int(SIGNED * num_inputs))
    return signed if name == "hostile_node" else max(1, (num_inputs - signed) // (len(TARGETS) - 1))


def fuzz(name: str, num_inputs: int, *, seed: int) -> tuple[Counter[str], float]:
    """Return what came of a target's inputs, and the CPU time they took in seconds.

    Raises:
        Exception: Whatever a reader raises that it does not document, or `Broken`.
    """
    draws, outcomes, started = rng.stream(seed, "fuzz", name), Counter[str](), time.process_time()
    for _ in range(num_inputs):
        outcomes[TARGETS[name](draws)] += 1
    return outcomes, time.process_time() - started


def peak_mb() -> float:
    """Return the most memory this process ever held, in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
