"""Which chains each node holds: equal numbers of them, drawn alike or by kind of shard.

Every node holds the same number of chains, since the number of its samples is a public constant of its accounting.

Shapes: N nodes, C chains, K kinds of shard.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from nerv_fl.errors import DataError
from nerv_fl.types import IntArray

NOTHING: Final = 1e-12
"""A node that wants less than this of every kind that is left takes whatever there is."""

LEAST_CONCENTRATION: Final = 1e-3


def by_chain(num_chains: int, *, num_nodes: int, chains_per_node: int) -> IntArray:
    """Give each node the next chains of the file.

    Returns:
        int64 [N, chains_per_node], the chains of each node.

    Raises:
        DataError: If there are too few chains.

    >>> by_chain(5, num_nodes=2, chains_per_node=2).tolist()
    [[0, 1], [2, 3]]
    """
    _require_enough(num_chains, num_nodes=num_nodes, chains_per_node=chains_per_node)
    return np.arange(num_nodes * chains_per_node).reshape(num_nodes, chains_per_node)


def by_dirichlet(
    kinds: npt.NDArray[np.uint8],
    *,
    num_nodes: int,
    chains_per_node: int,
    alpha: float,
    stream: np.random.Generator,
) -> IntArray:
    """Give each node chains of kinds in proportions of its own, p ~ Dirichlet(alpha K q), q being those of the file.

    Nodes choose in turn, one chain at a time and without replacement; where a kind has run out, a node chooses among
    those that are left. With a large alpha every node holds the file's proportions, with a small one mostly one kind.

    Args:
        kinds: uint8 [C], kind of each chain's shard.
        num_nodes: N.
        chains_per_node: Chains of each node.
        alpha: Concentration, above 0.
        stream: Random stream of the partition.

    Returns:
        int64 [N, chains_per_node], each node's chains in ascending order; no chain has two nodes.

    Raises:
        DataError: If there are too few chains.

    Source: Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification, 2019, section 3.1; here with equal numbers.
    """
    _require_enough(len(kinds), num_nodes=num_nodes, chains_per_node=chains_per_node)
    names, sizes = np.unique(kinds, return_counts=True)
    pools = [stream.permutation(np.flatnonzero(kinds == name)) for name in names]
    wanted = stream.dirichlet(np.maximum(alpha * len(names) * sizes / sizes.sum(), LEAST_CONCENTRATION), size=num_nodes)
    lots = stream.random((chains_per_node, num_nodes))
    left, taken = sizes.copy(), np.empty((num_nodes, chains_per_node), dtype=np.int64)
    for turn in range(chains_per_node):
        for node in range(num_nodes):
            weights = wanted[node] * (left > 0)
            if weights.sum() < NOTHING:
                weights = left.astype(np.float64)
            cumulative = np.cumsum(weights)
            kind = int(np.searchsorted(cumulative, lots[turn, node] * cumulative[-1], side="right"))
            left[kind] -= 1
            taken[node, turn] = pools[kind][left[kind]]
    return np.sort(taken, axis=1)


def _require_enough(num_chains: int, *, num_nodes: int, chains_per_node: int) -> None:
    if num_nodes * chains_per_node > num_chains:
        raise DataError(
            f"the nodes' ledger has {num_chains} chains, expected at least {num_nodes * chains_per_node} "
            f"({num_nodes} nodes of {chains_per_node} each)"
        )
