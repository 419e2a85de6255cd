"""How long actors stand idle at the end of a round, by the number and the sizes of the blocks of nodes.

The CPU time of a node's step is measured by its number of records; 200 rounds of 50 nodes with Poisson-drawn batches
are then replayed: a free actor takes the next block, as Flower's engine does. So the figures hold on a busy machine,
and for any number of actors.

    python -m benchmarks.bench_blocks
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.bench_dp_step import MODES, OURS, SEED, draw_batch, make_encoder, private_step
from benchmarks.measure import MILLI, median_cpu_ms, print_setting, print_table
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray

ROUNDS, NODES, RECORDS, BATCH = 200, 50, 4096, 64
SIZES = (16, 32, 48, 64)
"""Records of the steps that are timed."""

Cut = Callable[[int], Sequence[int]]


def equal(num_blocks: int) -> Cut:
    """Return a cut into blocks as `nerv_fl.client.app` makes them: equal, what is left over to the first ones."""
    return lambda nodes: [len(range(block, nodes, num_blocks)) for block in range(num_blocks)]


def tapered(num_blocks: int) -> Cut:
    """Return a cut into blocks from twice the mean size down to next to nothing."""

    def cut(nodes: int) -> Sequence[int]:
        edges = [round(nodes * (1 - (1 - block / num_blocks) ** 2)) for block in range(num_blocks + 1)]
        return np.diff(edges).tolist()

    return cut


CUTS: dict[str, Cut] = {"10 equal": equal(10), "12 equal": equal(12), "20 equal": equal(20), "10 tapered": tapered(10)}
CASES = {"all train": 1.0, "one in five does nothing": 0.0, "one in five takes three times as long": 3.0}
"""By what the cost of one node in five is multiplied."""


def main() -> None:
    """Measure the step, replay the rounds and print the table."""
    slope_s, constant_s = cost_of_a_record()
    drawn = stream(SEED, "batches").binomial(RECORDS, BATCH / RECORDS, size=(ROUNDS, NODES))
    costs_RN = constant_s + slope_s * drawn
    is_odd_RN = stream(SEED, "odd").random(costs_RN.shape) < 0.2
    rows = []
    for actors in (2, 3, 4):
        for case, factor in CASES.items():
            rounds = np.where(is_odd_RN, factor, 1.0) * costs_RN
            shares = [np.mean([idle_share(costs, cut, actors=actors) for costs in rounds]) for cut in CUTS.values()]
            rows.append([case, str(actors), *(f"{100 * share:.1f} %" for share in shares)])
    what = f"A step: {MILLI * constant_s:.0f} + {MILLI * slope_s:.2f} CPU ms a record; {NODES} nodes, {ROUNDS} rounds"
    print_setting(what, packages=["torch", "opacus"])
    print_table(["nodes", "actors", *CUTS], rows)


def cost_of_a_record() -> tuple[float, float]:
    """Return CPU seconds a record, and a step: a line through the measured sizes."""
    batch = draw_batch()
    steps = {str(size): private_step(make_encoder(), batch.part(0, size), make_engine=MODES[OURS]) for size in SIZES}
    times_ms = median_cpu_ms(steps, repeats=9)
    slope, constant = np.polyfit(SIZES, [times_ms[str(size)] / MILLI for size in SIZES], deg=1)
    return float(slope), float(constant)


def idle_share(costs_N: FloatArray, cut: Cut, *, actors: int) -> float:
    """Return the part of the actors' time in which they wait for the last one."""
    sizes = cut(len(costs_N))
    blocks = [float(part.sum()) for part in np.split(costs_N, np.cumsum(sizes)[:-1])]
    free_at = [0.0] * actors
    for block in blocks:
        heapq.heapreplace(free_at, free_at[0] + block)
    return 1 - sum(blocks) / (actors * max(free_at))


if __name__ == "__main__":
    main()
