import numpy as np
import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.shapley import MaskArray
from nerv_fl.shapley.permutation import estimate_permutation
from nerv_fl.types import FloatArray
from tests.shapley.known_games import GAMES, by_examples, exact_values, make_game


def budget_of(num_players: int) -> int:
    return int(2**num_players)


@pytest.mark.parametrize("name", GAMES)
def test_the_literal_ten_thousand(name: str) -> None:
    game = make_game(name, 6)
    exact_N = exact_values(game, 6)
    result = estimate_permutation(game, 6, budget=budget_of(6))
    assert (result.method, result.stop_reason) == ("permutation", "permutations")
    assert result.num_evaluations == 64
    assert (np.abs(result.values - exact_N) <= 4.5 * result.standard_errors + 1e-12).all()
    assert result.crosscheck_z < 5


def test_it_is_unbiased_and_its_errors_are_those_it_states() -> None:
    game = make_game("voting", 7)
    exact_N = exact_values(game, 7)
    results = [estimate_permutation(game, 7, budget=128, permutations=30, seed=seed) for seed in range(80)]
    values_RN = np.array([result.values for result in results])
    error_N = values_RN.std(axis=0, ddof=1) / np.sqrt(80)
    assert (np.abs(values_RN.mean(axis=0) - exact_N) <= 4 * error_N + 1e-12).all()
    stated_N = np.sqrt(np.mean([result.standard_errors**2 for result in results], axis=0))
    np.testing.assert_allclose(stated_N, values_RN.std(axis=0, ddof=1), rtol=0.5)


def test_a_quadratic_game_is_exact_after_one_pair() -> None:
    def game(masks_MN: MaskArray) -> FloatArray:
        gains_M = masks_MN @ np.array([1.0, 2.0, 3.0, 4.0])
        return np.asarray(gains_M + gains_M**2)

    result = estimate_permutation(game, 4, budget=8, permutations=2)
    np.testing.assert_allclose(result.values, exact_values(game, 4), rtol=1e-12)
    assert np.isinf(result.standard_errors).all()


def test_the_budget_ends_it() -> None:
    asked: list[bytes] = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.extend(row.tobytes() for row in masks_MN)
        return np.asarray(masks_MN.sum(axis=1) ** 2.0)

    result = estimate_permutation(game, 10, budget=100)
    assert result.stop_reason == "budget"
    assert len(asked) == len(set(asked)) == result.num_evaluations <= 100


def test_truncation_saves_evaluations_and_keeps_the_sum() -> None:
    game = make_game("airport", 10)
    whole = estimate_permutation(game, 10, budget=1024, permutations=20)
    short = estimate_permutation(game, 10, budget=1024, permutations=20, truncation=0.3)
    assert short.num_evaluations < whole.num_evaluations
    assert short.values.sum() == pytest.approx(whole.values.sum(), rel=1e-12)


def test_a_null_player_gets_exactly_nothing() -> None:
    result = estimate_permutation(lambda masks_MN: np.asarray(1.0 * masks_MN[:, 1]), 3, budget=8, permutations=10)
    assert (result.values[[0, 2]] == 0).all()
    assert (result.standard_errors[[0, 2]] == 0).all()


def test_examples_add_the_samples_own_error() -> None:
    game = make_game("coverage", 6)
    plain = estimate_permutation(game, 6, budget=64, permutations=40)
    per_example = by_examples(game, num_examples=30, seed=1)
    result = estimate_permutation(per_example, 6, budget=64, permutations=40, num_examples=30)
    np.testing.assert_allclose(result.values, plain.values, rtol=1e-9)
    assert (result.standard_errors > plain.standard_errors).all()


def test_bad_arguments_are_refused() -> None:
    game = make_game("glove", 4)
    with pytest.raises(ConfigError, match=r"^permutations is 1, expected at least 2: an order and its reverse$"):
        estimate_permutation(game, 4, budget=20, permutations=1)
    with pytest.raises(ConfigError, match=r"^budget is 7 evaluations, expected at least 8, one pair of orders$"):
        estimate_permutation(game, 4, budget=7)
    with pytest.raises(ConfigError, match=r"^truncation is 2, expected a number in \[0, 1\]$"):
        estimate_permutation(game, 4, budget=20, truncation=2)
