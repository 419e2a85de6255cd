"""Nodes that send the same update: found by cosine, and merged before anyone is valued.

A full-weight copy of an update would earn its sender a second share. Merged, the copies are one player with one node's
weight, and share one node's value. Copies with fresh noise look like strangers and are not found here.

Shapes: N nodes, P parameters, K merged players.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from nerv_fl.arrays import BoolArray, FloatArray
from nerv_fl.checks import in_range
from nerv_fl.errors import AggregationError, ConfigError

UpdateArray = npt.NDArray[np.float32]

_BLOCK_NUMBERS: Final = 2**22
"""Float64 numbers in one block of columns: 32 MiB."""

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
        Sums are in float64; beside the updates, memory is 32 MiB and a few N x N matrices, whatever P is.
    """
    in_range("cosine", cosine, low=0, high=1, open_low=True)
    if updates_NP.ndim != 2:  # noqa: PLR2004
        raise ConfigError(f"updates have shape {updates_NP.shape}, expected (N, P)")
    gram_NN = _gram(updates_NP)
    norms_N = np.sqrt(np.diagonal(gram_NN))
    alike_NN = gram_NN >= (cosine - _ROUNDING) * np.outer(norms_N, norms_N)
    alike_NN &= np.outer(norms_N > 0, norms_N > 0)
    return _components(alike_NN)


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


def _gram(updates_NP: UpdateArray) -> FloatArray:
    """Return all inner products, float64 [N, N], a block of columns at a time."""
    num_nodes, num_parameters = updates_NP.shape
    gram_NN = np.zeros((num_nodes, num_nodes))
    width = max(1, _BLOCK_NUMBERS // max(1, num_nodes))
    for start in range(0, num_parameters, width):
        block_NB = updates_NP[:, start : start + width].astype(np.float64)
        finite_N = np.isfinite(block_NB).all(axis=1)
        if not finite_N.all():
            raise AggregationError(f"update {int(np.argmin(finite_N))} is not finite, expected finite numbers")
        gram_NN += block_NB @ block_NB.T
    return gram_NN


def _components(alike_NN: BoolArray) -> list[tuple[int, ...]]:
    if not len(alike_NN):
        return []
    num_components, labels_N = connected_components(csr_array(alike_NN), directed=False)
    groups = [tuple(np.flatnonzero(labels_N == label).tolist()) for label in range(num_components)]
    return sorted(group for group in groups if len(group) > 1)


def _check_partition(membership: Sequence[tuple[int, ...]], num_nodes: int) -> None:
    nodes = sorted(node for group in membership for node in group)
    if nodes != list(range(num_nodes)):
        raise ConfigError(f"players hold the nodes {nodes}, expected each of 0..{num_nodes - 1} once")
