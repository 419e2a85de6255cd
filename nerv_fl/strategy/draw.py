"""Which nodes a round asks: public, and known in advance to whoever knows the seed."""

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.rng import stream


def draw_cohort(config: RunConfig, round_number: int) -> tuple[int, ...]:
    """Return the round's nodes, ascending, drawn without replacement from (seed, round)."""
    federation = config.federation
    drawn = stream(config.seed, "cohort", round_number).choice(
        federation.num_nodes, size=federation.cohort_size, replace=False
    )
    return tuple(sorted(drawn.tolist()))


def most_rounds(config: RunConfig) -> int:
    """Return in how many of a run's rounds the node takes part that is drawn most often: it spends most privacy."""
    counts_N = np.zeros(config.federation.num_nodes, dtype=np.int64)
    for round_number in range(1, config.federation.num_rounds + 1):
        counts_N[list(draw_cohort(config, round_number))] += 1
    return int(counts_N.max())
