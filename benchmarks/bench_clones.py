"""CPU time of finding clones among 1,000 updates, over all their exact cosines; and how many it finds.

A tenth of the nodes send copies of another's update, half of them bit for bit, half at a cosine of 0.96; the rest are
honest: a common gradient, one of their own, and the noise of DP-SGD at the quickstart's size.

    python -m benchmarks.bench_clones
"""

from functools import partial

import numpy as np

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl.enclave.deduplication import find_clones
from nerv_fl.enclave.update_statistics import Examiner, random_signs
from nerv_fl.rng import stream
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows

NUM_PARAMETERS = 49_376
NOISE_STD = 0.5 / 64
COSINE = 0.95
OURS, ALL_PAIRS = "find_clones", "all exact cosines"


def main() -> None:
    """Measure and print the table."""
    print_setting(f"{NUM_PARAMETERS:,} parameters an update, a threshold of {COSINE}", packages=["numpy", "scipy"])
    rows = []
    for num_nodes in (300, 1000):
        updates_NP = cohort(num_nodes)
        times = median_cpu_ms(
            {OURS: partial(ours, updates_NP), ALL_PAIRS: partial(all_pairs, updates_NP)},
            repeats=3,
            warm_up=1,
        )  # fmt: skip
        found = {node for group in ours(updates_NP) for node in group}
        copies = set(range(num_nodes // 10 * 2))
        recall, alarm = len(found & copies) / len(copies), len(found - copies) / (num_nodes - len(copies))
        rows.append(
            [
                f"{num_nodes:,}",
                f"{times[OURS]:,.0f}",
                f"{times[ALL_PAIRS]:,.0f}",
                f"{times[ALL_PAIRS] / times[OURS]:.1f} x",
                f"{100 * recall:.1f} %",
                f"{100 * alarm:.1f} %",
            ]
        )
    print_table(["nodes", "ours, ms", "all pairs, ms", "faster by", "found", "false alarm"], rows)


def cohort(num_nodes: int) -> Vector:
    """Return updates, float32 [N, P]: originals first, then their copies, then strangers."""
    generator = stream(7, "bench", "clones", num_nodes)
    common_P = generator.standard_normal(NUM_PARAMETERS) * 0.1 / NUM_PARAMETERS**0.5
    noise_NP = generator.standard_normal((num_nodes, NUM_PARAMETERS), dtype=np.float32)
    updates_NP = np.asarray(common_P + NOISE_STD * noise_NP, dtype=np.float32)
    tenth = num_nodes // 10
    updates_NP[tenth : 2 * tenth] = updates_NP[:tenth]
    stranger_NP = NOISE_STD * generator.standard_normal((tenth // 2, NUM_PARAMETERS))
    updates_NP[tenth : tenth + tenth // 2] = 0.96 * updates_NP[: tenth // 2] + (1 - 0.96**2) ** 0.5 * stranger_NP
    return updates_NP


def ours(updates_NP: Vector) -> list[tuple[int, ...]]:
    """Return the groups, sketches included."""
    look = Examiner(
        np.zeros((0, NUM_PARAMETERS)), small=0.0, spacing=np.zeros_like, signs_L=random_signs(NUM_PARAMETERS)
    )
    return find_clones(Rows.of(updates_NP), [look(update_P) for update_P in updates_NP], cosine=COSINE)


def all_pairs(updates_NP: Vector) -> int:
    """Return the number of pairs at the threshold, by one matrix product in float64."""
    updates = updates_NP.astype(np.float64)
    updates /= np.linalg.norm(updates, axis=1, keepdims=True)
    return int((updates @ updates.T >= COSINE).sum())


if __name__ == "__main__":
    main()
