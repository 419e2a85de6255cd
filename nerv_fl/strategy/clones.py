"""Nodes that send the same update: found by cosine, and merged before anyone is valued.

A full-weight copy of an update would earn its sender a second share. Merged, the copies are one player with one node's
weight, and share one node's value. Copies with fresh noise look like strangers and are not found here.

Shapes: N nodes, P parameters, K merged players.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from nerv_fl.arrays import FloatArray, Vector
from nerv_fl.checks import in_range
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.rng import stream
from nerv_fl.rows import Rows

_SKETCH: Final = 1024
"""Numbers that an update is sketched in."""

_MARGIN: Final = 6 * (2 / _SKETCH) ** 0.5
"""Six standard deviations of a sketched cosine."""

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


def find_clones(updates: Rows, *, cosine: float) -> list[tuple[int, ...]]:
    """Return the groups of nodes linked by <u_i, u_j> / (|u_i| |u_j|) >= cosine.

    Groups are connected components: a chain of near-duplicates is one group even if its ends differ. An update of exact
    zeros has no direction and is nobody's clone; being a free rider, it earns 0 anyway.

    Args:
        updates: N updates.
        cosine: Threshold in (0, 1]; it is met up to a rounding of 1e-9.

    Returns:
        Groups of at least two nodes, ascending, ordered by their first nodes.

    Raises:
        ConfigError: If the threshold is out of range.
        AggregationError: If an update is not finite.

    Guarantees:
        Every link is an exact cosine, summed in float64; which pairs are looked at is decided by sketches of 1,024
        numbers, which miss a pair at the threshold with a probability of about 1e-9. Memory is a few updates and N x N
        matrices: one pass over the updates, and one over those that look alike for each group of them.
    """
    in_range("cosine", cosine, low=0, high=1, open_low=True)
    sketch_ND, norms_N = _sketch(updates)
    lengths_NN = np.outer(norms_N, norms_N)
    likely_NN = (sketch_ND @ sketch_ND.T >= (cosine - _MARGIN) * lengths_NN) & (lengths_NN > 0)
    groups = DisjointSet(range(len(updates)))
    for node, likely_N in enumerate(likely_NN):
        later = np.flatnonzero(likely_N[node + 1 :]) + node + 1
        others = np.array([other for other in later.tolist() if not groups.connected(node, other)], dtype=np.int64)
        if len(others):
            products_M = _products(updates[node], updates.select(others.tolist()))
            for other in others[products_M >= (cosine - _ROUNDING) * lengths_NN[node, others]].tolist():
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


def _sketch(updates: Rows) -> tuple[FloatArray, FloatArray]:
    """Return a sketch that keeps inner products in expectation, float64 [N, D], and the norms, float64 [N].

    Each coordinate is added with a random sign to one of D sums: for unit vectors the variance of a sketched inner
    product is at most 2 / D.

    Source: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.
    """
    length = -(-updates.num_parameters // _SKETCH) * _SKETCH
    signs_L = stream(0, "clones").integers(2, size=length, dtype=np.int8) * np.int8(2) - np.int8(1)
    sketch_ND, squares_N = np.zeros((len(updates), _SKETCH)), np.zeros(len(updates))
    padded_L = np.zeros(length)
    for node, update_P in enumerate(updates):
        padded_L[: updates.num_parameters] = update_P
        squares_N[node] = padded_L @ padded_L
        if not np.isfinite(squares_N[node]):
            raise AggregationError(f"update {node} is not finite, expected finite numbers")
        sketch_ND[node] = (padded_L * signs_L).reshape(-1, _SKETCH).sum(axis=0)
    return sketch_ND, np.sqrt(squares_N)


def _products(update_P: Vector, others: Rows) -> FloatArray:
    """Return exact inner products with others, float64 [M]."""
    wide_P = update_P.astype(np.float64)
    return np.array([float(other_P.astype(np.float64) @ wide_P) for other_P in others])


def _check_partition(membership: Sequence[tuple[int, ...]], num_nodes: int) -> None:
    nodes = sorted(node for group in membership for node in group)
    if nodes != list(range(num_nodes)):
        raise ConfigError(f"players hold the nodes {nodes}, expected each of 0..{num_nodes - 1} once")
