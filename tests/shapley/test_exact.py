from itertools import count, permutations
from math import factorial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.shapley import FloatArray, Game, MaskArray, estimate_exact, exact
from nerv_fl.shapley.exact import all_coalitions, enumerate_values

NUMBERS = st.floats(-100, 100, allow_subnormal=False)


def games(num_players: int) -> st.SearchStrategy[FloatArray]:
    return arrays(np.float64, 2**num_players, elements=NUMBERS)


def shapley(values_C: FloatArray, num_players: int) -> FloatArray:
    return enumerate_values(values_C[:, None], num_players)[:, 0]


def by_permutations(values_C: FloatArray, num_players: int) -> FloatArray:
    """The definition by orders of arrival, sharing nothing with the code under test."""
    values_N = np.zeros(num_players)
    for order in permutations(range(num_players)):
        coalition = 0
        for player in order:
            values_N[player] += values_C[coalition | 1 << player] - values_C[coalition]
            coalition |= 1 << player
    return values_N / factorial(num_players)


def tabulated(values_C: FloatArray) -> Game:
    def game(masks_MN: MaskArray) -> FloatArray:
        return values_C[masks_MN @ (1 << np.arange(masks_MN.shape[1]))]

    return game


@given(games(4))
def test_enumeration_is_the_mean_over_orders(values_C: FloatArray) -> None:
    np.testing.assert_allclose(shapley(values_C, 4), by_permutations(values_C, 4), atol=1e-12 * 100)


@given(games(5))
def test_efficiency(values_C: FloatArray) -> None:
    assert shapley(values_C, 5).sum() == pytest.approx(values_C[-1] - values_C[0], abs=1e-11)


@given(games(5), st.integers(0, 4))
def test_null_player_has_exactly_nothing(values_C: FloatArray, player: int) -> None:
    indifferent_C = values_C[np.arange(32) & ~(1 << player)]
    assert shapley(indifferent_C, 5)[player] == 0.0


@given(games(5), st.integers(0, 3))
def test_symmetric_players_have_equal_values(values_C: FloatArray, player: int) -> None:
    indices = np.arange(32)
    bits = (indices >> player & 1, indices >> (player + 1) & 1)
    swapped = indices & ~(3 << player) | bits[1] << player | bits[0] << (player + 1)
    values_N = shapley((values_C + values_C[swapped]) / 2, 5)
    assert values_N[player] == pytest.approx(values_N[player + 1], abs=1e-12)


@given(games(4), games(4), NUMBERS)
def test_linearity(values_C: FloatArray, others_C: FloatArray, factor: float) -> None:
    together = shapley(values_C + factor * others_C, 4)
    np.testing.assert_allclose(together, shapley(values_C, 4) + factor * shapley(others_C, 4), atol=1e-9)


def test_glove_game() -> None:
    """One left glove, two right gloves; a pair is worth 1: 2/3, 1/6, 1/6 (Shapley)."""
    masks = all_coalitions(3)
    values_C = (masks[:, 0] & (masks[:, 1] | masks[:, 2])).astype(np.float64)
    np.testing.assert_allclose(shapley(values_C, 3), [2 / 3, 1 / 6, 1 / 6], rtol=1e-14)


def test_airport_game() -> None:
    """A runway costs what its longest plane needs; each stretch is shared by those who use it (Littlechild, Owen)."""
    costs = np.array([1.0, 2.0, 5.0, 9.0])
    values_C = (all_coalitions(4) * costs).max(axis=1)
    shared = np.cumsum([1 / 4, 1 / 3, 3 / 2, 4 / 1])
    np.testing.assert_allclose(shapley(values_C, 4), shared, rtol=1e-14)


def test_voting_game() -> None:
    """Weights 4, 2, 1, 1 with quota 5: the first wins with anyone, so in every order but those where it comes first."""
    values_C = (all_coalitions(4) @ np.array([4, 2, 1, 1]) >= 5).astype(np.float64)
    np.testing.assert_allclose(shapley(values_C, 4), [3 / 4, 1 / 12, 1 / 12, 1 / 12], rtol=1e-14)


def test_the_exact_method_evaluates_every_coalition_once() -> None:
    rng = np.random.default_rng(3)
    values_CK = rng.normal(size=(2**7, 20))
    asked = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.append(len(masks_MN))
        return tabulated(values_CK)(masks_MN)

    result = estimate_exact(game, 7, num_examples=20, confidence=0.9)
    per_example_NK = np.stack([by_permutations(values_CK[:, k], 7) for k in range(2)], axis=1)
    np.testing.assert_allclose(enumerate_values(values_CK, 7)[:, :2], per_example_NK, atol=1e-14)
    np.testing.assert_allclose(result.values, shapley(values_CK.mean(axis=1), 7), atol=1e-14)
    errors_N = enumerate_values(values_CK, 7).std(axis=1, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(result.standard_errors, errors_N, rtol=1e-12)
    np.testing.assert_allclose(result.ci_high - result.values, 1.6448536269514722 * errors_N, rtol=1e-12)
    np.testing.assert_allclose(result.ci_low + result.ci_high, 2 * result.values, atol=1e-14)
    assert sum(asked) == result.num_evaluations == 128
    assert (result.method, result.stop_reason) == ("exact", "enumerated")
    assert abs(result.efficiency_gap) < 1e-15
    assert result.crosscheck_z < 1e-10


def test_a_free_rider_gets_exactly_nothing_through_shap_too() -> None:
    values_C = np.random.default_rng(4).normal(size=64)[np.arange(64) & ~4]
    result = estimate_exact(tabulated(values_C), 6)
    assert result.values[2] == result.standard_errors[2] == result.ci_low[2] == result.ci_high[2] == 0.0
    assert result.standard_errors.tolist() == [0.0] * 6
    assert np.all(result.values[[0, 1, 3, 4, 5]] != 0.0)


def test_one_player_and_a_worth_of_nobody() -> None:
    result = estimate_exact(lambda masks: np.where(masks, [[2.0, 5.0]], 0.5), 1, num_examples=2)
    assert result.values.tolist() == [3.0]
    assert result.num_evaluations == 2
    assert result.standard_errors.tolist() == [pytest.approx(1.5)]


def test_twelve_players() -> None:
    weights = np.arange(12) - 3.0
    result = estimate_exact(lambda masks: (masks @ weights) ** 2, 12)
    np.testing.assert_allclose(result.values, weights * weights.sum(), atol=1e-9)
    assert result.num_evaluations == 4096


def test_bad_arguments_are_refused() -> None:
    game = tabulated(np.zeros(4))
    with pytest.raises(ConfigError, match=r"^num_players is 17, expected 1\.\.16 for exact Shapley values$"):
        estimate_exact(game, 17)
    with pytest.raises(ConfigError, match=r"^num_players is 0, expected 1\.\.16 for exact Shapley values$"):
        estimate_exact(game, 0)
    with pytest.raises(ConfigError, match=r"^num_examples is 1, expected at least 2 for a standard error$"):
        estimate_exact(game, 2, num_examples=1)
    with pytest.raises(ConfigError, match=r"^the game returned shape \(4,\), expected \(4, 3\)$"):
        estimate_exact(game, 2, num_examples=3)
    with pytest.raises(AggregationError, match=r"^value of coalition \[1\] is nan, expected a finite number$"):
        estimate_exact(tabulated(np.array([0, 1, np.nan, 2])), 2)


def test_a_disagreement_with_shap_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_through_shap", lambda values_C, num_players: np.array([1.0, 2.0 + 1e-9]))
    message = r"^Shapley values of shap and of the enumeration differ by 1\.0\d*e-09, expected at most 3e-12$"
    with pytest.raises(AggregationError, match=message):
        estimate_exact(tabulated(np.array([0.0, 1.0, 2.0, 3.0])), 2)


def test_intervals_cover_the_population() -> None:
    """Games with sampled validation examples: 95 % intervals hold the population's value in 93-100 % of the cases."""
    covered = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        mean_C = rng.normal(size=16)
        values_CK = mean_C[:, None] + rng.normal(size=(16, 64)) * rng.uniform(0.5, 3, size=(16, 1))
        result = estimate_exact(tabulated(values_CK), 4, num_examples=64)
        truth_N = shapley(mean_C, 4)
        covered.append((result.ci_low <= truth_N) & (truth_N <= result.ci_high))
    assert 0.93 <= np.mean(covered) <= 1.0


def test_nothing_is_printed_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hours = count(step=3600)
    monkeypatch.setattr("shap.utils._show_progress.time", SimpleNamespace(time=lambda: next(hours)))
    estimate_exact(tabulated(np.arange(4.0)), 2)
    assert capfd.readouterr() == ("", "")
