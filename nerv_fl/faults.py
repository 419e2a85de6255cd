"""Which nodes a simulated round loses, and how: a pure function of the settings, the same in every process of a run.

    offline   never reached: it spends nothing
    failed    stops in the middle of the round: it has accounted for it and sends nothing
    late      answers after the deadline: it has accounted for it, and the enclave refuses its envelope

An answer of node i in round t takes median exp(spread z_it + node_spread z_i) seconds, z standard normal.
"""

import math
from collections.abc import Iterable
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.rng import stream

OFFLINE: Final = "offline"
FAILED: Final = "failed"
LATE: Final = "late"
FATES: Final = (OFFLINE, FAILED, LATE)


def nodes_by_fate(config: RunConfig, round_number: int, nodes: Iterable[int]) -> dict[str, frozenset[int]]:
    """Return the nodes that a round loses, by each of `FATES`; whoever is in none answers in time."""
    fates = {node: fate_of(config, round_number, node) for node in nodes} if config.faults.any else {}
    return {fate: frozenset(node for node, drawn in fates.items() if drawn == fate) for fate in FATES}


def fate_of(config: RunConfig, round_number: int, node: int) -> str:
    """Return one of `FATES`, or an empty string; no setting changes what another draws."""
    faults = config.faults
    drawn = stream(config.seed, "fault", round_number, node)
    offline, failure = drawn.random(2)
    if offline < faults.offline:
        return OFFLINE
    if failure < faults.failure:
        return FAILED
    deviation = faults.spread * drawn.standard_normal()
    if faults.node_spread:
        deviation += faults.node_spread * stream(config.seed, "slowness", node).standard_normal()
    answer_s = faults.median_s * math.exp(deviation)
    return LATE if faults.deadline_s and answer_s > faults.deadline_s else ""
