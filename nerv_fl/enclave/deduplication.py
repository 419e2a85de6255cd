"""Nodes that send the same update: found by cosine, and merged before anyone is valued.

A full-weight copy of an update would earn its sender a second share. Merged, the copies are one player with one node's
weight, and share one node's value. Copies with fresh noise look like strangers and are not found here.

Shapes: N nodes, P parameters, K merged players; D numbers of a sketch, C of a coarse one.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from nerv_fl.enclave.update_statistics import SKETCH, Traits
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.types import BoolArray, FloatArray, IntArray, Vector
from nerv_fl.validation import in_range
from nerv_fl.vectors import Rows

_COARSE: Final = 256
"""Numbers of the sketch that most pairs are told apart by."""

_ROWS: Final = 512
"""Nodes that are compared with all others at a time."""

_CROWDED: Final = 1 / 64
"""Share of pairs from which one product of whole sketches is faster than a product for each pair."""

_ROUNDING: Final = 1e-9
"""Slack of the threshold, above the rounding of a cosine: identical updates are clones at a threshold of 1."""


class MergedPlayers(NamedTuple):
    """The cohort with each group of clones as one player.

    Attributes:
        updates: One a player.
        weights: float64 [K].
        membership: The nodes of each player, ascending; players are in the order of their first nodes.
    """

    updates: Rows
    weights: FloatArray
    membership: list[tuple[int, ...]]


def find_clones(updates: Rows, traits: Sequence[Traits], *, cosine: float) -> list[tuple[int, ...]]:
    """Return the groups of nodes linked by <u_i, u_j> / (|u_i| |u_j|) >= cosine.

    Groups are connected components: a chain of near-duplicates is one group even if its ends differ. An update of exact
    zeros has no direction and is nobody's clone; being a free rider, it earns 0 anyway.

    Args:
        updates: N updates.
        traits: What was seen of each.
        cosine: Threshold in (0, 1]; it is met up to a rounding of 1e-9.

    Returns:
        Groups of at least two nodes, ascending, ordered by their first nodes.

    Raises:
        ConfigError: If the threshold is out of range.
        AggregationError: If an update is not finite.

    Guarantees:
        Every link is an exact cosine, summed in float64; which pairs are looked at is decided by sketches of 1,024
        numbers and, before them, of 256, which miss a pair at the threshold with a probability of about 1e-9 each.
        Updates are read only where two look alike, a pass over them for each group.
    """
    in_range("cosine", cosine, low=0, high=1, open_low=True)
    norms_N = np.sqrt([item.square for item in traits])
    for wrong in np.flatnonzero(~np.isfinite(norms_N)):
        raise AggregationError(f"update {wrong} is not finite, expected finite numbers")
    groups = DisjointSet(range(len(updates)))
    for node, likely in _likely(traits, norms_N > 0, cosine=cosine):
        others = np.array([other for other in likely.tolist() if not groups.connected(node, other)], dtype=np.int64)
        if len(others):
            products_M = _products(updates[node], updates.select(others.tolist()))
            met_M = products_M >= (cosine - _ROUNDING) * (norms_N[node] * norms_N[others])
            for other in others[met_M].tolist():
                groups.merge(node, other)
    return sorted(tuple(sorted(group)) for group in groups.subsets() if len(group) > 1)


def merge_clones(updates: Rows, weights_N: FloatArray, *, groups: Sequence[tuple[int, ...]]) -> MergedPlayers:
    """Return the cohort with each group as one player: the mean of its updates, and its largest weight.

    Args:
        updates: N updates.
        weights_N: float64 [N].
        groups: Disjoint groups of nodes, as `find_clones` returns them.

    Returns:
        The merged players; a node in no group is a player of its own, its update unchanged.

    Raises:
        ConfigError: If the groups overlap or name a node that does not exist.
    """
    num_nodes = len(updates)
    grouped = {node for group in groups for node in group}
    alone = [(node,) for node in range(num_nodes) if node not in grouped]
    membership = sorted([*alone, *(tuple(sorted(group)) for group in groups)])
    _check_partition(membership, num_nodes)
    firsts = updates.select([nodes[0] for nodes in membership])

    def merged(player: int, first_P: Vector) -> Vector:
        others = updates.select(membership[player][1:])
        if not len(others):
            return first_P
        total_P = sum((other_P.astype(np.float64) for other_P in others), start=first_P.astype(np.float64))
        return np.asarray(total_P / len(membership[player]), dtype=np.float32)

    weights_K = np.array([weights_N[list(nodes)].max() for nodes in membership], dtype=np.float64)
    return MergedPlayers(updates=firsts.map(merged), weights=weights_K, membership=membership)


def split_values(values_K: FloatArray, membership: Sequence[tuple[int, ...]], *, num_nodes: int) -> FloatArray:
    """Return each node's equal part of its player's value; of a standard error or an interval's end likewise.

    Args:
        values_K: float64 [K].
        membership: The nodes of each player.
        num_nodes: N.

    Returns:
        float64 [N], with the same sum up to rounding.

    Raises:
        ConfigError: If the players do not hold every node once.

    >>> split_values(np.array([6.0, 1.0]), [(0, 2), (1,)], num_nodes=3).tolist()
    [3.0, 1.0, 3.0]
    """
    if len(values_K) != len(membership):
        raise ConfigError(f"there are {len(values_K)} values, expected {len(membership)}, one a player")
    _check_partition(membership, num_nodes)
    values_N = np.empty(num_nodes, dtype=np.float64)
    for value, nodes in zip(values_K, membership, strict=True):
        values_N[list(nodes)] = value / len(nodes)
    return values_N


def _likely(traits: Sequence[Traits], moved_N: BoolArray, *, cosine: float) -> Iterator[tuple[int, IntArray]]:
    """Yield each node, ascending, with the later ones that its sketch looks like: `_ROWS` nodes against all at a time.

    Almost all pairs are told apart by a quarter of the sketch; only the others are looked at in full.
    """
    sketch_ND = np.stack([item.sketch_D for item in traits]) if traits else np.zeros((0, SKETCH), np.float32)
    coarse_NC = sketch_ND.reshape(len(traits), SKETCH // _COARSE, _COARSE).sum(axis=1)
    for start in range(0, len(traits), _ROWS):
        rows = slice(start, start + _ROWS)
        alike_RN = coarse_NC[rows] @ coarse_NC[start:].T >= cosine - _margin(_COARSE)
        alike_RN &= moved_N[rows, None] & moved_N[start:]
        crowded = alike_RN.mean() > _CROWDED
        if crowded:
            alike_RN &= sketch_ND[rows] @ sketch_ND[start:].T >= cosine - _margin(SKETCH)
        for row in np.flatnonzero(alike_RN.any(axis=1)).tolist():
            later = start + row + 1 + np.flatnonzero(alike_RN[row, row + 1 :])
            if not crowded:
                later = later[sketch_ND[later] @ sketch_ND[start + row] >= cosine - _margin(SKETCH)]
            if len(later):
                yield start + row, later


def _margin(num_sums: int) -> float:
    """Return six standard deviations of a cosine sketched in so many numbers."""
    return float(6 * (2 / num_sums) ** 0.5)


def _products(update_P: Vector, others: Rows) -> FloatArray:
    """Return exact inner products with others, float64 [M]."""
    wide_P = update_P.astype(np.float64)
    return np.array([float(other_P.astype(np.float64) @ wide_P) for other_P in others])


def _check_partition(membership: Sequence[tuple[int, ...]], num_nodes: int) -> None:
    nodes = sorted(node for group in membership for node in group)
    if nodes != list(range(num_nodes)):
        raise ConfigError(f"players hold the nodes {nodes}, expected each of 0..{num_nodes - 1} once")
