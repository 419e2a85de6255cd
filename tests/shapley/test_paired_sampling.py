from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.shapley.paired_sampling import draw_pairs


@given(st.integers(2, 9), st.integers(1, 300), st.integers(0, 3))
def test_no_pair_comes_twice_and_none_is_the_grand_one(num_players: int, num_pairs: int, seed: int) -> None:
    pairs_PN = draw_pairs(num_players, num_pairs, seed=seed)
    assert len(pairs_PN) == min(num_pairs, 2 ** (num_players - 1) - 1)
    both = {row.tobytes() for row in pairs_PN} | {row.tobytes() for row in ~pairs_PN}
    assert len(both) == 2 * len(pairs_PN)
    assert pairs_PN.any(axis=1).all()
    assert not pairs_PN.all(axis=1).any()


def test_outer_sizes_are_whole() -> None:
    sizes_P = draw_pairs(12, 63, seed=0).sum(axis=1)
    assert np.bincount(sizes_P, minlength=7)[1] == 12
    assert len(sizes_P) == 63
    rows = {tuple(np.flatnonzero(row).tolist()) for row in draw_pairs(12, 400, seed=0)}
    assert {pair for pair in rows if len(pair) == 2} == set(combinations(range(12), 2))


def test_sizes_follow_the_kernel_weights() -> None:
    sizes_P = draw_pairs(60, 4000, seed=1).sum(axis=1)
    counts = np.bincount(sizes_P, minlength=31)
    assert counts[1] == 60
    inner = np.arange(2, 31)
    expected = (4000 - 60) * (1 / (inner * (60 - inner))) / (1 / (inner * (60 - inner))).sum()
    np.testing.assert_allclose(counts[2:], expected, atol=1.0)


def test_a_beginning_holds_every_size() -> None:
    assert set(draw_pairs(12, 200, seed=0)[:60].sum(axis=1)) == {1, 2, 3, 4, 5, 6}


def test_the_same_seed_draws_the_same() -> None:
    np.testing.assert_array_equal(draw_pairs(20, 50, seed=4, path=(1,)), draw_pairs(20, 50, seed=4, path=(1,)))
    assert not np.array_equal(draw_pairs(20, 50, seed=4, path=(1,)), draw_pairs(20, 50, seed=4, path=(2,)))


@pytest.mark.parametrize("num_players", [1, 2])
def test_few_players(num_players: int) -> None:
    assert draw_pairs(num_players, 5, seed=0).shape == (num_players - 1, num_players)
