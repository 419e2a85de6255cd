"""Nodes that send the same update: found by cosine, and merged before anyone is valued.

A full-weight copy of an update would earn its sender a second share. Merged, the copies are one player with one node's
weight, and share one node's value. Copies with fresh noise look like strangers and are not found here.

Shapes: N nodes, P parameters, K merged players.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet

from nerv_fl.arrays import FloatArray
from nerv_fl.checks import in_range
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.rng import stream

UpdateArray = npt.NDArray[np.float32]

_BLOCK_NUMBERS: Final = 2**22
"""Float64 numbers in one block of columns: 32 MiB."""

_SKETCH: Final = 1024
"""Numbers that an update is sketched in."""

_MARGIN: Final = 6 * (2 / _SKETCH) ** 0.5
"""Six standard deviations of a sketched cosine."""

_ROUNDING: Final = 1e-9
"""Slack of the threshold, above the rounding of a cosine: identical updates are clones at a threshold of 1."""


class MergedPlayers(NamedTuple):
    """The cohort with each group of clones as one player.

    Attributes:
        updates: float32 [K, P].
        weights: float64 [K].
        membership: The nodes of each player, ascending; players are in the order of their first nodes.
    """

    updates: UpdateArray
    weights: FloatArray
    membership: list[tuple[int, ...]]


def find_clones(updates_NP: UpdateArray, *, cosine: float) -> list[tuple[int, ...]]:
    """Return the groups of nodes linked by <u_i, u_j> / (|u_i| |u_j|) >= cosine.

    Groups are connected components: a chain of near-duplicates is one group even if its ends differ. An update of exact
    zeros has no direction and is nobody's clone; being a free rider, it earns 0 anyway.

    Args:
        updates_NP: float32 [N, P].
        cosine: Threshold in (0, 1]; it is met up to a rounding of 1e-9.

    Returns:
        Groups of at least two nodes, ascending, ordered by their first nodes.

    Raises:
        ConfigError: If the threshold is out of range or the updates are not a matrix.
        AggregationError: If an update is not finite.

    Guarantees:
        Every link is an exact cosine, summed in float64; which pairs are looked at is decided by sketches of 1,024
        numbers, which miss a pair at the threshold with a probability of about 1e-9. Beside the updates (and copies of
        those that look alike), memory is a few blocks of 32 MiB and N x N matrices, whatever P is.
    """
    in_range("cosine", cosine, low=0, high=1, open_low=True)
    if updates_NP.ndim != 2:  # noqa: PLR2004
        raise ConfigError(f"updates have shape {updates_NP.shape}, expected (N, P)")
    sketch_ND, norms_N = _sketch(updates_NP)
    lengths_NN = np.outer(norms_N, norms_N)
    likely_NN = (sketch_ND @ sketch_ND.T >= (cosine - _MARGIN) * lengths_NN) & (lengths_NN > 0)
    groups = DisjointSet(range(len(updates_NP)))
    for node, likely_N in enumerate(likely_NN):
        later = np.flatnonzero(likely_N[node + 1 :]) + node + 1
        others = np.array([other for other in later.tolist() if not groups.connected(node, other)], dtype=np.int64)
        if len(others):
            products_M = _products(updates_NP[node], updates_NP[others])
            for other in others[products_M >= (cosine - _ROUNDING) * lengths_NN[node, others]].tolist():
                groups.merge(node, other)
    return sorted(tuple(sorted(group)) for group in groups.subsets() if len(group) > 1)


def merge_clones(updates_NP: UpdateArray, weights_N: FloatArray, *, groups: Sequence[tuple[int, ...]]) -> MergedPlayers:
    """Return the cohort with each group as one player: the mean of its updates, and its largest weight.

    Args:
        updates_NP: float32 [N, P].
        weights_N: float64 [N].
        groups: Disjoint groups of nodes, as `find_clones` returns them.

    Returns:
        The merged players; a node in no group is a player of its own, its update unchanged.

    Raises:
        ConfigError: If the groups overlap or name a node that does not exist.
    """
    num_nodes = len(updates_NP)
    grouped = {node for group in groups for node in group}
    alone = [(node,) for node in range(num_nodes) if node not in grouped]
    membership = sorted([*alone, *(tuple(sorted(group)) for group in groups)])
    _check_partition(membership, num_nodes)
    updates_KP = np.empty((len(membership), updates_NP.shape[1]), dtype=np.float32)
    for player, nodes in enumerate(membership):
        updates_KP[player] = updates_NP[list(nodes)].mean(axis=0, dtype=np.float64)
    weights_K = np.array([weights_N[list(nodes)].max() for nodes in membership], dtype=np.float64)
    return MergedPlayers(updates=updates_KP, weights=weights_K, membership=membership)


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


def _sketch(updates_NP: UpdateArray) -> tuple[FloatArray, FloatArray]:
    """Return a sketch that keeps inner products in expectation, float64 [N, D], and the norms, float64 [N].

    Each coordinate is added with a random sign to one of D sums: for unit vectors the variance of a sketched inner
    product is at most 2 / D.

    Source: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.
    """
    num_nodes, num_parameters = updates_NP.shape
    sketch_ND, squares_N = np.zeros((num_nodes, _SKETCH)), np.zeros(num_nodes)
    signs = stream(0, "clones")
    for start, stop in _column_blocks(num_nodes, num_parameters):
        block_NB = np.zeros((num_nodes, -(-(stop - start) // _SKETCH) * _SKETCH))
        block_NB[:, : stop - start] = updates_NP[:, start:stop]
        block_squares_N = np.einsum("nb,nb->n", block_NB, block_NB)
        if not np.isfinite(block_squares_N).all():
            wrong = int(np.argmin(np.isfinite(block_squares_N)))
            raise AggregationError(f"update {wrong} is not finite, expected finite numbers")
        squares_N += block_squares_N
        block_NB *= 2.0 * signs.integers(2, size=block_NB.shape[1]) - 1.0
        sketch_ND += block_NB.reshape(num_nodes, block_NB.shape[1] // _SKETCH, _SKETCH).sum(axis=1)
    return sketch_ND, np.sqrt(squares_N)


def _products(update_P: UpdateArray, others_MP: UpdateArray) -> FloatArray:
    """Return exact inner products with others, float64 [M], a block of columns at a time."""
    products_M = np.zeros(len(others_MP))
    for start, stop in _column_blocks(len(others_MP), len(update_P)):
        products_M += others_MP[:, start:stop].astype(np.float64) @ update_P[start:stop].astype(np.float64)
    return products_M


def _column_blocks(num_rows: int, num_columns: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of columns that hold at most about `_BLOCK_NUMBERS` numbers, whole multiples of the sketch."""
    width = max(1, _BLOCK_NUMBERS // max(1, num_rows) // _SKETCH) * _SKETCH
    for start in range(0, num_columns, width):
        yield start, min(start + width, num_columns)


def _check_partition(membership: Sequence[tuple[int, ...]], num_nodes: int) -> None:
    nodes = sorted(node for group in membership for node in group)
    if nodes != list(range(num_nodes)):
        raise ConfigError(f"players hold the nodes {nodes}, expected each of 0..{num_nodes - 1} once")
