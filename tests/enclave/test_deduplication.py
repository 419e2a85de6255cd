import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.enclave.deduplication import find_clones, merge_clones, split_values
from nerv_fl.enclave.update_statistics import Examiner, random_signs
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows


def strangers(num_nodes: int, num_parameters: int, *, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(size=(num_nodes, num_parameters)).astype(np.float32)


def clones_of(updates_NP: Vector, *, cosine: float) -> list[tuple[int, ...]]:
    num_parameters = updates_NP.shape[1]
    look = Examiner(
        np.zeros((0, num_parameters)), small=0.0, spacing=np.zeros_like, signs_L=random_signs(num_parameters)
    )
    return find_clones(Rows.of(updates_NP), [look(update_P) for update_P in updates_NP], cosine=cosine)


def test_by_hand() -> None:
    """Angles of 0, 20, 40, 90 and 95 degrees, one of them long: cos 20 = 0.940, cos 5 = 0.996, cos 40 = 0.766."""
    degrees = np.radians([0, 90, 20, 40, 95])
    updates_NP = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    updates_NP[2] *= 1000
    assert clones_of(updates_NP, cosine=0.95) == [(1, 4)]
    assert clones_of(updates_NP, cosine=0.93) == [(0, 2, 3), (1, 4)]
    assert clones_of(updates_NP, cosine=0.6) == [(0, 1, 2, 3, 4)]
    assert clones_of(updates_NP, cosine=1.0) == []


def test_identical_updates_are_clones_at_a_threshold_of_one() -> None:
    updates_NP = strangers(40, 5000)
    updates_NP[20:39] = updates_NP[:19] * np.arange(1, 20, dtype=np.float32)[:, None]
    updates_NP[39] = -updates_NP[19]
    assert clones_of(updates_NP, cosine=1.0) == [(node, node + 20) for node in range(19)]


def test_zero_updates_are_nobodys_clones() -> None:
    updates_NP = np.zeros((4, 10), dtype=np.float32)
    updates_NP[3] = 1
    assert clones_of(updates_NP, cosine=0.01) == []
    updates_NP[2] = 1e-44
    assert clones_of(updates_NP, cosine=0.95) == [(2, 3)]
    updates_NP[2:] = 3e38
    assert clones_of(updates_NP, cosine=0.95) == [(2, 3)]


def test_a_hundred_copies_among_three_hundred() -> None:
    """Every copy is found, at cosines down to 0.95 of the original, and no honest node is."""
    honest = strangers(200, 2000, seed=1)
    noise = strangers(100, 2000, seed=2) * np.linspace(0, 0.3, 100, dtype=np.float32)[:, None]
    updates_NP = np.concatenate([honest, honest[:1] + noise])
    assert clones_of(updates_NP, cosine=0.95) == [(0, *range(200, 300))]


@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0.05, 1))
@settings(max_examples=50)
def test_groups_are_those_of_a_slow_search(seed: int, num_nodes: int, cosine: float) -> None:
    updates_NP = strangers(num_nodes, 3, seed=seed)
    parent = list(range(num_nodes))
    for one in range(num_nodes):
        for other in range(one):
            u, v = updates_NP[one].astype(np.float64), updates_NP[other].astype(np.float64)
            if u @ v / np.sqrt((u @ u) * (v @ v)) >= cosine:
                parent = [parent[one] if label == parent[other] else label for label in parent]
    expected = sorted(
        tuple(node for node in range(num_nodes) if parent[node] == label)
        for label in set(parent)
        if parent.count(label) > 1
    )
    assert clones_of(updates_NP, cosine=cosine) == expected


def test_updates_are_read_one_at_a_time() -> None:
    updates_NP = strangers(20, 100_000)
    updates_NP[7] = updates_NP[3] + strangers(1, 100_000, seed=3)[0] / 5
    updates_NP[9] = updates_NP[8] * np.where(np.arange(100_000) < 50_000, 1, -1)
    tracemalloc.start()
    assert clones_of(updates_NP, cosine=0.9) == [(3, 7)]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < updates_NP.nbytes / 2


def test_few_or_no_nodes() -> None:
    assert clones_of(np.zeros((0, 5), dtype=np.float32), cosine=0.9) == []
    assert clones_of(np.ones((1, 5), dtype=np.float32), cosine=0.9) == []


def test_bad_updates_are_refused() -> None:
    updates_NP = strangers(3, 4)
    updates_NP[1, 2] = np.inf
    with pytest.raises(AggregationError, match=r"^update 1 is not finite, expected finite numbers$"):
        clones_of(updates_NP, cosine=0.9)
    with pytest.raises(ConfigError, match=r"^cosine is 0\.0, expected a number in \(0, 1\]$"):
        clones_of(updates_NP, cosine=0.0)


def test_merging_by_hand() -> None:
    updates_NP = np.array([[0, 0], [1, 2], [9, 9], [3, 4], [9, 7]], dtype=np.float32)
    weights_N = np.array([1.0, 0.5, 1.0, 2.0, 0.25])
    merged = merge_clones(Rows.of(updates_NP), weights_N, groups=[(4, 2), (1, 3)])
    assert merged.membership == [(0,), (1, 3), (2, 4)]
    assert merged.updates.stacked().tolist() == [[0, 0], [2, 3], [9, 8]]
    assert merged.updates[1].dtype == np.float32
    assert merged.weights.tolist() == [1.0, 2.0, 1.0]
    assert split_values(np.array([0.0, 4.0, -3.0]), merged.membership, num_nodes=5).tolist() == [0, 2, -1.5, 2, -1.5]


def test_without_groups_nothing_changes() -> None:
    updates_NP, weights_N = strangers(5, 40), np.arange(5.0)
    merged = merge_clones(Rows.of(updates_NP), weights_N, groups=[])
    np.testing.assert_array_equal(merged.updates.stacked(), updates_NP)
    np.testing.assert_array_equal(merged.weights, weights_N)
    assert split_values(weights_N, merged.membership, num_nodes=5).tolist() == weights_N.tolist()


def test_groups_that_overlap_or_name_strangers_are_refused() -> None:
    updates_NP, weights_N = strangers(3, 4), np.ones(3)
    message = r"^players hold the nodes \[0, 1, 1, 2\], expected each of 0\.\.2 once$"
    with pytest.raises(ConfigError, match=message):
        merge_clones(Rows.of(updates_NP), weights_N, groups=[(0, 1), (1, 2)])
    with pytest.raises(ConfigError, match=r"^players hold the nodes \[0, 1, 2, 7\], expected each of 0\.\.2 once$"):
        merge_clones(Rows.of(updates_NP), weights_N, groups=[(2, 7)])


def test_bad_splits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^there are 2 values, expected 1, one a player$"):
        split_values(np.ones(2), [(0, 1)], num_nodes=2)
    with pytest.raises(ConfigError, match=r"^players hold the nodes \[0, 1\], expected each of 0\.\.2 once$"):
        split_values(np.ones(1), [(0, 1)], num_nodes=3)
