"""What a shard is: parameters drawn once, and the hidden state that the simulation advances minute by minute."""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nerv_fl.rng import stream

Records = npt.NDArray[Any]
"""Structured array of `PARAMETERS` or `STATE`."""

DAY: Final = 1440
OU_SIGMA: Final = 0.08
OU_MINUTES: Final = 45.0
POOL: Final = 2000.0
"""Users whom a storm can reach."""

PARAMETERS: Final = np.dtype(
    [
        (name, np.float64)
        for name in (
            "capacity",  # transactions a second at the ordinary mix
            "use",  # mean demand as a part of capacity, before the fee market
            "day_swing",
            "day_phase",
            "week_swing",
            "week_phase",
            "elasticity",  # part of the demand above the market's threshold that remains
            "storm_rate",  # storms begun a minute
            "decoy_rate",
            "shock_rate",
            "transfer",  # ordinary mix
            "complex",
            "cross",
            "density",  # active accounts per transaction a second
            "cpu_gain",
            "memory",  # percent used at rest
            "size",  # bits of a transaction
            "splits",  # 1 if overload splits the shard
        )
    ]
)
STATE: Final = np.dtype(
    [
        (name, np.float64)
        for name in (
            "minute",
            "drift",  # the logarithm of demand, Ornstein-Uhlenbeck
            "organic",  # demand of ordinary users, part of capacity
            "pool",  # users the storm has not reached
            "infected",  # users in the storm
            "spread",  # R0 of the storm
            "weight",
            "excited",  # demand that the users in the storm will make
            "storm",  # demand that they make now
            "decoy",
            "decoy_left",
            "shock",
            "shock_left",
            "share_complex",
            "share_cross",
            "share_transfer",
            "queue",
            "arrived",
            "served",
            "balked",
            "room",  # transactions that could have been served
            "load",  # lagged use
            "warmth",  # lagged memory
            "cpu",
            "mem",
            "accounts",
            "latency",
            "hot_run",
            "calm_run",
            "overload",
            "over_run",
            "low_run",
            "rest",  # minutes until the next action
            "depth",  # splits in force
            "action",
        )
    ]
)


def draw_parameters(seed: int, shard: int, *, splits: bool) -> Records:
    """Draw the parameters of a shard.

    Args:
        seed: Seed of the data set.
        shard: Number of the shard.
        splits: Whether overload splits it.

    Returns:
        One record of `PARAMETERS`, [1].
    """
    rng = stream(seed, "sharding", shard, "parameters")
    parameters = np.zeros(1, dtype=PARAMETERS)
    record = parameters[0]
    record["capacity"] = math.exp(rng.normal(math.log(600), 0.5))
    record["use"] = rng.uniform(0.40, 0.95)
    record["elasticity"] = rng.uniform(0.15, 0.40)
    for name, low, high in (("day", 0.10, 0.30), ("week", 0.03, 0.12)):
        record[f"{name}_swing"] = rng.uniform(low, high)
        record[f"{name}_phase"] = rng.uniform(0, 2 * math.pi)
    record["storm_rate"] = 2.5 * math.exp(rng.normal(0, 0.3)) / DAY
    record["decoy_rate"] = 3.0 / DAY
    record["shock_rate"] = 0.01 / DAY
    record["transfer"] = rng.uniform(0.45, 0.70)
    record["complex"] = rng.uniform(0.08, 0.25)
    record["cross"] = rng.uniform(0.08, 0.30)
    record["density"] = math.exp(rng.normal(math.log(20), 0.4))
    record["cpu_gain"] = rng.uniform(0.97, 1.03)
    record["memory"] = rng.uniform(25, 45)
    record["size"] = math.exp(rng.normal(math.log(2000), 0.2))
    record["splits"] = splits
    return parameters


def first_state(seed: int, shard: int) -> Records:
    """Return the state of a shard before its first minute, one record of `STATE`, [1]."""
    state = np.zeros(1, dtype=STATE)
    state["drift"] = OU_SIGMA * stream(seed, "sharding", shard, "begin").standard_normal()
    state["load"] = 0.5
    return state
