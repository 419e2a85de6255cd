"""Who takes part in a round, from what was opened: suspects are left out, clones merged, weights capped.

Shapes: N nodes that take part, P parameters.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.enclave.admission import Admitted
from nerv_fl.enclave.aggregate import cap_weights
from nerv_fl.enclave.deduplication import MergedPlayers, find_clones, merge_clones
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.screening import UNNOISED, screen
from nerv_fl.records import NodeCounts

COPY_COSINE: Final = 0.9999
"""Cosine from which updates without noise are taken for copies: honest ones may be nearly parallel without it."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A round's players and everyone who is none.

    Attributes:
        nodes: Nodes that take part, ascending.
        players: Their updates, clones merged.
        flags: Why a valid update was left out, by node.
        faults: What a node's own signature proves against it: a refusal, or an update without its noise.
        heard: Nodes that are proven to have answered.
        counts: For the record.
    """

    nodes: tuple[int, ...]
    players: MergedPlayers
    flags: Mapping[int, str]
    faults: Mapping[int, str]
    heard: frozenset[int]
    counts: NodeCounts


def form_cohort(given: RoundInput, admitted: Admitted, *, config: RunConfig, num_trained: int) -> Cohort:
    """Screen a round's updates, and merge the clones among those that are left.

    Args:
        given: The round, with the weights and what is public.
        admitted: What its envelopes held.
        config: Thresholds and the cap of the weights.
        num_trained: How many coordinates of an update are trained.
    """
    screened = screen(admitted.traits, num_parameters=num_trained, config=config)
    flags = {node: flag for node, flag in zip(admitted.nodes, screened, strict=True) if flag}
    nodes = tuple(node for node in admitted.nodes if node not in flags)
    clear = [index for index, flag in enumerate(screened) if not flag]
    updates, traits = admitted.updates.select(clear), [admitted.traits[index] for index in clear]
    weights_N = np.array([given.weights[node] for node in nodes], dtype=np.float64)
    if len(weights_N):
        weights_N = cap_weights(weights_N, max_weight=config.server.max_weight)
    groups = find_clones(updates, traits, cosine=_clone_cosine(config))
    return Cohort(
        nodes=nodes,
        players=merge_clones(updates, weights_N, groups=groups),
        flags=flags,
        faults={**admitted.faults, **{node: flag for node, flag in flags.items() if flag == UNNOISED}},
        heard=admitted.heard,
        counts=NodeCounts(
            sampled=len(given.cohort),
            heard=len(admitted.heard),
            admitted=len(admitted.nodes),
            refused=admitted.refused,
            clones=sum(len(group) for group in groups),
            flagged=dict(sorted(Counter(flags.values()).items())),
        ),
    )


def _clone_cosine(config: RunConfig) -> float:
    """Return the cosine from which two updates are taken for one; only for copies where no noise sets nodes apart."""
    cosine = config.enclave.clone_cosine
    return cosine if config.privacy.is_private else max(cosine, COPY_COSINE)
