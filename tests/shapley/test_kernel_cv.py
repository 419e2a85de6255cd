import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream
from nerv_fl.shapley import Control, LinearControl, MaskArray, MeanControl, QuadraticControl
from nerv_fl.shapley.kernel_cv import estimate_kernel_cv
from nerv_fl.types import FloatArray
from tests.shapley.known_games import GAMES, by_examples, exact_values, make_game, relative_error

LIMITS = {"coverage": 0.015, "glove": 0.08, "airport": 0.08, "voting": 0.6}
"""Largest relative error at 32 evaluations a player: kernel SHAP on the same pairs has 0.03, 0.05, 0.19 and 0.4."""


@pytest.mark.parametrize("name", GAMES)
def test_errors_are_small_and_intervals_honest(name: str) -> None:
    covered, errors = [], []
    for seed in range(6):
        game = make_game(name, 12, seed=seed)
        exact_N = exact_values(game, 12)
        result = estimate_kernel_cv(game, 12, budget=384, seed=seed)
        assert result.num_evaluations <= 384
        errors.append(relative_error(result.values, exact_N))
        covered.append(np.mean((result.ci_low <= exact_N + 1e-9) & (exact_N - 1e-9 <= result.ci_high)))
    assert np.mean(errors) < LIMITS[name]
    assert np.mean(covered) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_intervals_cover_what_they_say(name: str) -> None:
    covered = []
    for seed in range(100):
        game = make_game(name, 10, seed=seed)
        exact_N = exact_values(game, 10)
        result = estimate_kernel_cv(game, 10, budget=200, seed=seed)
        covered.append(np.mean((result.ci_low <= exact_N + 1e-9) & (exact_N - 1e-9 <= result.ci_high)))
    assert 0.93 <= np.mean(covered) <= 1.0


@pytest.mark.parametrize("name", GAMES)
def test_every_pair_gives_the_exact_values(name: str) -> None:
    game = make_game(name, 7)
    result = estimate_kernel_cv(game, 7, budget=128)
    assert result.stop_reason == "enumerated"
    assert result.num_evaluations == 128
    assert relative_error(result.values, exact_values(game, 7)) < 1e-4


@given(st.integers(3, 9), st.integers(0, 3), st.sampled_from(sorted(GAMES)))
def test_the_values_are_shared_out_whole(num_players: int, seed: int, name: str) -> None:
    game = make_game(name, num_players, seed=seed)
    ends = game(np.array([[False] * num_players, [True] * num_players]))
    result = estimate_kernel_cv(game, num_players, budget=10 * num_players, seed=seed)
    assert result.values.sum() == pytest.approx(ends[1] - ends[0], rel=1e-9, abs=1e-12)
    assert np.isfinite(result.standard_errors).all()


def gains_and_curvature(num_players: int) -> tuple[FloatArray, FloatArray]:
    draw = stream(9, "mean game", num_players)
    root_NN = draw.normal(size=(num_players, num_players))
    return draw.normal(size=num_players) + 3, root_NN @ root_NN.T


def test_a_control_that_is_the_game_leaves_nothing_to_estimate() -> None:
    gains_N, curvature_NN = gains_and_curvature(20)
    control = MeanControl(gains_N, np.ones(20), curvature_NN)
    result = estimate_kernel_cv(control, 20, budget=60, controls=[control])
    np.testing.assert_allclose(result.values, control.shapley(), rtol=1e-6)


def test_a_control_helps_and_a_useless_one_does_no_harm() -> None:
    gains_N, curvature_NN = gains_and_curvature(12)
    other_N = stream(9, "other").normal(size=12)
    truth = MeanControl(gains_N, np.ones(12), curvature_NN)

    def game(masks_MN: MaskArray) -> FloatArray:
        return np.asarray(np.tanh(truth(masks_MN) / 20))

    exact_N = exact_values(game, 12)
    errors = {}
    sets: dict[str, list[Control]] = {
        "none": [],
        "good": [truth],
        "useless": [LinearControl(other_N), QuadraticControl(other_N, np.diag(other_N))],
    }
    for name, controls in sets.items():
        results = [estimate_kernel_cv(game, 12, budget=128, controls=controls, seed=seed) for seed in range(5)]
        errors[name] = np.mean([relative_error(result.values, exact_N) for result in results])
    assert errors["good"] < 0.6 * errors["none"]
    assert errors["useless"] < 1.3 * errors["none"]


def test_examples_add_the_samples_own_error() -> None:
    game = make_game("coverage", 8)
    per_example = by_examples(game, num_examples=40, seed=0)
    plain = estimate_kernel_cv(game, 8, budget=80)
    result = estimate_kernel_cv(per_example, 8, budget=80, num_examples=40)
    np.testing.assert_allclose(result.values, plain.values, rtol=1e-6)
    gain_K = per_example(np.ones((1, 8), dtype=np.bool_))[0] / game(np.ones((1, 8), dtype=np.bool_))[0]
    sample_N = plain.values * gain_K.std(ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(result.standard_errors, np.hypot(plain.standard_errors, sample_N), rtol=1e-4)


def test_it_stops_when_the_intervals_are_narrow() -> None:
    game = make_game("coverage", 14)
    whole = estimate_kernel_cv(game, 14, budget=1000)
    early = estimate_kernel_cv(game, 14, budget=1000, tolerance=0.2)
    assert (whole.stop_reason, early.stop_reason) == ("budget", "tolerance")
    assert early.num_evaluations < whole.num_evaluations
    half_N = (early.ci_high - early.ci_low) / 2
    assert half_N.max() <= 0.2 * np.abs(early.values).max() * 1.001


def test_the_same_seed_gives_the_same_bits() -> None:
    game = make_game("airport", 12)
    first, second = (estimate_kernel_cv(game, 12, budget=100, seed=5, path=(3,)) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    assert not np.array_equal(first.values, estimate_kernel_cv(game, 12, budget=100, seed=6, path=(3,)).values)


def test_bad_arguments_are_refused() -> None:
    game = make_game("glove", 4)
    with pytest.raises(ConfigError, match=r"^num_players is 1, expected at least 2$"):
        estimate_kernel_cv(game, 1, budget=20)
    with pytest.raises(ConfigError, match=r"^budget is 7 evaluations, expected at least 8$"):
        estimate_kernel_cv(game, 4, budget=7)
    with pytest.raises(ConfigError, match=r"^control 0 is of 3 players, expected 4$"):
        estimate_kernel_cv(game, 4, budget=12, controls=[LinearControl(np.ones(3))])
