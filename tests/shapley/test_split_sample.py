import numpy as np
import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.shapley import LinearControl
from nerv_fl.shapley.split_sample import estimate_audit
from tests.shapley.known_games import GAMES, by_examples, exact_values, make_game


@pytest.mark.parametrize("name", GAMES)
def test_it_is_unbiased(name: str) -> None:
    game = make_game(name, 7)
    values_RN = np.array([estimate_audit(game, 7, budget=40, seed=seed).values for seed in range(150)])
    error_N = values_RN.std(axis=0, ddof=1) / np.sqrt(len(values_RN))
    assert (np.abs(values_RN.mean(axis=0) - exact_values(game, 7)) <= 4 * error_N + 1e-9).all()


@pytest.mark.parametrize("name", GAMES)
def test_its_errors_are_those_it_states(name: str) -> None:
    game = make_game(name, 9)
    exact_N = exact_values(game, 9)
    results = [estimate_audit(game, 9, budget=120, seed=seed) for seed in range(40)]
    z_RN = np.array([(result.values - exact_N) / result.standard_errors for result in results])
    assert 0.7 < np.sqrt(np.mean(z_RN**2)) < 1.4


def test_it_is_unbiased_though_the_control_lies() -> None:
    game = make_game("coverage", 6)
    lie = [LinearControl(np.array([50.0, -50.0, 0.0, 0.0, 9.0, 0.0]))]
    values_RN = np.array([estimate_audit(game, 6, budget=26, controls=lie, seed=seed).values for seed in range(150)])
    error_N = values_RN.std(axis=0, ddof=1) / np.sqrt(len(values_RN))
    assert (np.abs(values_RN.mean(axis=0) - exact_values(game, 6)) <= 4 * error_N).all()


def test_the_budget_is_kept_and_the_values_sum() -> None:
    game = make_game("voting", 10)
    result = estimate_audit(game, 10, budget=60)
    assert result.method == "audit"
    assert 30 < result.num_evaluations <= 60
    assert result.values.sum() == pytest.approx(1.0, abs=1e-12)


def test_examples_add_the_samples_own_error() -> None:
    game = make_game("coverage", 8)
    plain = estimate_audit(game, 8, budget=80)
    result = estimate_audit(by_examples(game, num_examples=30, seed=1), 8, budget=80, num_examples=30)
    np.testing.assert_allclose(result.values, plain.values, rtol=1e-6)
    assert (result.standard_errors > plain.standard_errors).all()


def test_bad_arguments_are_refused() -> None:
    game = make_game("glove", 4)
    with pytest.raises(ConfigError, match=r"^num_players is 1, expected at least 2$"):
        estimate_audit(game, 1, budget=20)
    with pytest.raises(ConfigError, match=r"^budget is 17 evaluations, expected at least 18$"):
        estimate_audit(game, 4, budget=17)
