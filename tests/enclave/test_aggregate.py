import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.config import ServerConfig
from nerv_fl.enclave.aggregate import (
    LINEAR_RULES,
    SORTING_RULES,
    Direction,
    OptimizerState,
    add_mean_noise,
    aggregate,
    aggregate_coalitions,
    cap_weights,
    contributions,
    next_direction,
)
from nerv_fl.errors import AggregationError
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows

P = 7


def vector(*numbers: float) -> Vector:
    return np.array(numbers, dtype=np.float32)


def drawn(seed: int, *shape: int) -> Vector:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_weighted_mean_by_hand() -> None:
    updates_NP = np.array([[1, 2], [4, -2]], dtype=np.float32)

    shares = contributions(Rows.of(updates_NP), np.array([3.0, 1.0]), config=ServerConfig())

    assert shares.stacked().tolist() == [[0.75, 1.5], [1.0, -0.5]]
    assert aggregate(shares, config=ServerConfig()).tolist() == [1.75, 1.0]


def test_weights_are_capped_at_a_multiple_of_their_median() -> None:
    weights_N = np.array([1.0, 1.0, 1.0, 100.0])

    assert cap_weights(weights_N, max_weight=2.0).tolist() == [1.0, 1.0, 1.0, 2.0]
    assert weights_N[3] == 100.0
    assert cap_weights(np.ones(3), max_weight=2.0).tolist() == [1.0, 1.0, 1.0]


def test_clipped_mean_shortens_long_updates_and_leaves_short_ones() -> None:
    config = ServerConfig(aggregation="clipped_mean", clip_norm=1.0)
    updates_NP = np.array([[3, 4], [0.3, 0.4], [0, 0]], dtype=np.float32)

    shares = contributions(Rows.of(updates_NP), np.ones(3), config=config)

    assert np.allclose(3 * shares.stacked(), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-6)


def test_trimmed_mean_drops_the_ends_of_each_coordinate() -> None:
    """10 nodes, 10 % from each end: coordinate 0 loses 0 and 9 (mean of 1..8), coordinate 1 the outliers."""
    updates_NP = np.stack([np.arange(10), np.r_[-1e6, np.ones(8), 1e6]], axis=1).astype(np.float32)
    config = ServerConfig(aggregation="trimmed_mean", trim_fraction=0.1)

    found = aggregate(contributions(Rows.of(updates_NP), np.ones(10), config=config), config=config)

    assert np.allclose(found, [4.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("values", "median"), [([5, -100, 7], 5.0), ([1, 2, 4, 1000], 3.0)])
def test_median_by_hand(values: list[float], median: float) -> None:
    config = ServerConfig(aggregation="median")
    updates_NP = np.array(values, dtype=np.float32)[:, None]

    found = aggregate(contributions(Rows.of(updates_NP), np.ones(len(values)), config=config), config=config)

    assert found == pytest.approx([median])


@pytest.mark.parametrize("rule", sorted(LINEAR_RULES | set(SORTING_RULES)))
def test_a_unanimous_cohort_is_its_own_aggregate(rule: str) -> None:
    config = ServerConfig(aggregation=rule)
    update_P = drawn(1, P)
    updates_NP = np.tile(update_P, (5, 1))

    assert np.allclose(
        aggregate(contributions(Rows.of(updates_NP), np.ones(5), config=config), config=config), update_P
    )


def test_the_sum_is_exact_where_float32_would_lose_digits() -> None:
    shares_NP = np.array([[1e8], [1.0], [-1e8]], dtype=np.float32)

    assert aggregate(Rows.of(shares_NP), config=ServerConfig()).tolist() == [1.0]


def test_no_update_is_an_error() -> None:
    with pytest.raises(AggregationError, match=r"^cohort has 0 updates, expected at least 1$"):
        aggregate(Rows.of(np.zeros((0, P), np.float32)), config=ServerConfig())


def test_noise_on_the_mean_has_its_standard_deviation_and_a_stream_for_each_round() -> None:
    config, zeros_P = ServerConfig(aggregation="clipped_mean", mean_noise_std=0.2), np.zeros(20_000, np.float32)

    first, again, second = (add_mean_noise(zeros_P, config=config, seed=7, round_number=r) for r in (1, 1, 2))

    assert np.array_equal(first, again)
    assert first.std() == pytest.approx(0.2, rel=0.03)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert add_mean_noise(zeros_P, config=ServerConfig(), seed=7, round_number=1) is zeros_P


# --- The server's direction -------------------------------------------------------------------------------------------


class ReferenceAdam:
    """Adam as Kingma and Ba write it (algorithm 1), one number at a time, descending -(aggregate)."""

    def __init__(self, size: int, config: ServerConfig) -> None:
        self.m, self.v, self.t, self.config = [0.0] * size, [0.0] * size, 0, config

    def step(self, theta: list[float], gradient: list[float]) -> list[float]:
        config = self.config
        self.t += 1
        moved = []
        for i, g in enumerate(gradient):
            self.m[i] = config.beta1 * self.m[i] + (1 - config.beta1) * g
            self.v[i] = config.beta2 * self.v[i] + (1 - config.beta2) * g * g
            m_hat, v_hat = self.m[i] / (1 - config.beta1**self.t), self.v[i] / (1 - config.beta2**self.t)
            moved.append(theta[i] - config.learning_rate * m_hat / (v_hat**0.5 + config.epsilon))
        return moved


def test_five_rounds_of_adam_agree_with_the_reference() -> None:
    config = ServerConfig(learning_rate=0.01)
    theta_P, state, free_P = drawn(1, P), OptimizerState.empty(P), np.zeros(P, np.float32)
    reference, expected = ReferenceAdam(P, config), theta_P.tolist()

    for round_number in range(5):
        aggregate_P = drawn(10 + round_number, P)
        direction, state = next_direction(theta_P, state, aggregate_P=aggregate_P, free_P=free_P, config=config)
        theta_P = direction.candidate(aggregate_P, step=1.0)
        expected = reference.step(expected, (-aggregate_P).tolist())

    assert theta_P.tolist() == pytest.approx(expected, rel=1e-5)
    assert state.num_rounds == 5


def test_momentum_by_hand() -> None:
    """m = 0.9 x 2 + 0.1 x 3 = 2.1; theta + 2 x 0.5 x (2.1 + 1) with the data-free direction 1."""
    config = ServerConfig(optimizer="momentum", learning_rate=0.5, beta1=0.9)
    state = OptimizerState(momentum_P=vector(2.0), second_P=vector(0.0), num_rounds=4)

    direction, following = next_direction(
        vector(10.0), state, aggregate_P=vector(3.0), free_P=vector(1.0), config=config
    )

    assert following.momentum_P == pytest.approx([2.1])
    assert direction.candidate(vector(3.0), step=2.0) == pytest.approx([13.1])


def test_data_free_direction_enters_the_second_moment_and_the_direction() -> None:
    """Round 1: v / (1 - beta2) = (3 + 1)^2, so P = 0.1 / (4 + 0.001); the move is P (3 + 1)."""
    config = ServerConfig(learning_rate=0.1, epsilon=1e-3)

    direction, following = next_direction(
        vector(0.0), OptimizerState.empty(1), aggregate_P=vector(3.0), free_P=vector(1.0), config=config
    )

    assert direction.candidate(vector(3.0), step=1.0) == pytest.approx([0.1 * 4 / 4.001])
    assert following.momentum_P == pytest.approx([0.3])


def test_nothing_given_is_changed() -> None:
    theta_P, aggregate_P, state = drawn(1, P), drawn(2, P), OptimizerState.empty(P)
    before = [item.copy() for item in (theta_P, aggregate_P, state.momentum_P, state.second_P)]

    direction, following = next_direction(
        theta_P, state, aggregate_P=aggregate_P, free_P=drawn(3, P), config=ServerConfig()
    )
    direction.candidate(aggregate_P, step=1.0)

    assert all(
        np.array_equal(one, other)
        for one, other in zip(before, (theta_P, aggregate_P, state.momentum_P, state.second_P), strict=True)
    )
    assert state.num_rounds == 0
    assert following.momentum_P.dtype == following.second_P.dtype == np.float32


def some_direction() -> Direction:
    return Direction(theta_P=drawn(1, P), scale_P=np.abs(drawn(2, P)), constant_P=drawn(3, P), share=0.4)


def test_step_0_is_the_encoder_that_stands() -> None:
    assert np.array_equal(some_direction().candidate(drawn(4, P), step=0.0), some_direction().theta_P)


@given(masks=st.lists(st.booleans(), min_size=5, max_size=5), step=st.sampled_from([0.0625, 1.0, 4.0]))
def test_a_coalitions_candidate_is_affine_in_its_members(masks: list[bool], step: float) -> None:
    """x_C - x_empty is the sum of its members' displacements: what makes the game a game about updates."""
    config, direction = ServerConfig(), some_direction()
    shares = contributions(Rows.of(drawn(5, 5, P)), np.array([1.0, 2.0, 1.0, 0.5, 1.0]), config=config)
    mask_N: npt.NDArray[np.bool_] = np.array(masks)

    coalition_P = direction.candidate(aggregate_coalitions(shares, mask_N[None], config=config)[0], step=step)
    empty_P = direction.candidate(np.zeros(P, np.float32), step=step)

    moved_P = direction.displacement(shares, step=step).stacked()[mask_N].sum(axis=0)
    assert np.allclose(coalition_P - empty_P, moved_P, atol=1e-6)


def test_linear_rules_are_those_whose_parts_add_up() -> None:
    updates_NP = drawn(6, 6, P)
    for rule in LINEAR_RULES | set(SORTING_RULES):
        config = ServerConfig(aggregation=rule, trim_fraction=0.2)
        shares = contributions(Rows.of(updates_NP), np.ones(6), config=config)
        half_N = np.arange(6) < 3
        parts = aggregate_coalitions(shares, np.stack([half_N, ~half_N]), config=config)
        adds_up = np.allclose(parts[0] + parts[1], aggregate(shares, config=config), atol=1e-6)
        assert adds_up == (rule in LINEAR_RULES)
