"""Which nodes a round asks: public, and known in advance to whoever knows the seed."""

from collections.abc import Sequence

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.rng import stream


def draw_cohort(config: RunConfig, round_number: int, *, members: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the round's nodes, ascending, drawn without replacement from (seed, round).

    Args:
        config: The run's settings; a cohort has `federation.cohort_size` nodes, or all members if they are fewer.
        round_number: From 1.
        members: Nodes to draw from, ascending; 0 to `federation.num_nodes` - 1 if None.
    """
    federation = config.federation
    among = range(federation.num_nodes) if members is None else members
    size = min(federation.cohort_size, len(among))
    drawn = stream(config.seed, "cohort", round_number).choice(len(among), size=size, replace=False)
    return tuple(sorted(among[index] for index in drawn.tolist()))


def most_rounds(config: RunConfig) -> int:
    """Return in how many of a run's rounds the node takes part that is drawn most often: it spends most privacy."""
    counts_N = np.zeros(config.federation.num_nodes, dtype=np.int64)
    for round_number in range(1, config.federation.num_rounds + 1):
        counts_N[list(draw_cohort(config, round_number))] += 1
    return int(counts_N.max())
