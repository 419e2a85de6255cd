"""Which chains a node holds: equal numbers, none twice, alike or not as alpha says."""

import numpy as np
import pytest

from nerv_fl import rng
from nerv_fl.data.partition import by_chain, by_dirichlet
from nerv_fl.errors import DataError
from nerv_fl.types import IntArray

KINDS = np.tile(np.arange(1, 5, dtype=np.uint8), 500)


def divide(alpha: float, *, seed: int = 3) -> IntArray:
    return by_dirichlet(KINDS, num_nodes=20, chains_per_node=50, alpha=alpha, stream=rng.stream(seed, "partition"))


def test_no_chain_has_two_nodes() -> None:
    found = divide(0.3)
    assert found.shape == (20, 50)
    assert len(np.unique(found)) == 1000


def largest_share(found: IntArray) -> float:
    """Return the share of its commonest kind in a node, mean over nodes."""
    return float(np.mean([np.bincount(KINDS[chains]).max() / len(chains) for chains in found]))


def test_small_alpha_gives_one_kind_and_large_alpha_gives_all_alike() -> None:
    assert largest_share(divide(0.02)) > 0.9
    assert largest_share(divide(1000.0)) < 0.42
    assert largest_share(divide(0.02)) > largest_share(divide(0.5)) > largest_share(divide(1000.0))


def test_the_whole_file_can_be_divided() -> None:
    found = by_dirichlet(KINDS, num_nodes=40, chains_per_node=50, alpha=0.1, stream=rng.stream(3, "partition"))
    assert sorted(found.reshape(-1).tolist()) == list(range(2000))


def test_it_follows_from_the_stream() -> None:
    assert (divide(0.5) == divide(0.5)).all()
    assert (divide(0.5) != divide(0.5, seed=4)).any()


@pytest.mark.parametrize("scheme", ["chain", "dirichlet"])
def test_too_few_chains(scheme: str) -> None:
    stream = rng.stream(3, "partition")
    divisions = {
        "chain": lambda: by_chain(99, num_nodes=10, chains_per_node=10),
        "dirichlet": lambda: by_dirichlet(KINDS[:99], num_nodes=10, chains_per_node=10, alpha=1.0, stream=stream),
    }
    with pytest.raises(DataError) as error:
        divisions[scheme]()
    assert str(error.value) == "the nodes' ledger has 99 chains, expected at least 100 (10 nodes of 10 each)"
