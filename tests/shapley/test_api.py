from itertools import count

import numpy as np
import pytest

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.shapley import LinearControl, MaskArray, estimate
from nerv_fl.shapley.api import METHODS
from nerv_fl.shapley.exact import MAX_PLAYERS
from nerv_fl.types import FloatArray
from tests.shapley.known_games import GAMES, by_examples, exact_values, make_game


def additive(masks_MN: MaskArray) -> FloatArray:
    return np.asarray(masks_MN.sum(axis=1), dtype=np.float64)


@pytest.mark.parametrize(
    ("num_players", "budget", "surrogate", "method"),
    [
        (6, None, None, "exact"),
        (13, 2**13, None, "exact"),
        (13, None, None, "kernel_cv"),
        (20, 200, None, "kernel_cv"),
        (20, 199, np.ones(20), "surrogate"),
        (20, 199, None, "kernel_cv"),
        (6, 63, None, "kernel_cv"),
    ],
)
def test_auto_chooses_by_size_and_budget(
    num_players: int, budget: int | None, *, surrogate: FloatArray | None, method: str
) -> None:
    result = estimate(additive, num_players, budget=budget, surrogate=surrogate)
    assert result.method == method
    np.testing.assert_allclose(result.values, 1.0, rtol=1e-5)
    assert budget is None or result.num_evaluations <= budget


@pytest.mark.parametrize("method", ["exact", "kernel_cv", "permutation", "surrogate", "audit"])
@pytest.mark.parametrize("name", GAMES)
def test_every_method_shares_out_the_whole(name: str, method: str) -> None:
    game = make_game(name, 8)
    surrogate = np.full(8, 0.1)
    result = estimate(game, 8, method=method, budget=256, permutations=20, surrogate=surrogate)
    ends = game(np.array([[False] * 8, [True] * 8]))
    assert result.method == method
    assert abs(ends[1] - ends[0] - result.values.sum()) <= 1e-9 * abs(ends[1] - ends[0])
    assert (result.ci_low <= result.values).all()
    assert (result.values <= result.ci_high).all()
    assert result.num_evaluations <= 256


def test_below_ten_evaluations_a_player_the_surrogate_stands() -> None:
    gains_N = np.linspace(0, 1, 30)
    control = LinearControl(gains_N)

    def game(masks_MN: MaskArray) -> FloatArray:
        return np.asarray(control(masks_MN) ** 1.1)

    result = estimate(game, 30, budget=100, controls=[control])
    assert result.method == "surrogate"
    gap = game(np.ones((1, 30), dtype=np.bool_))[0] - gains_N.sum()
    np.testing.assert_allclose(result.values, np.where(gains_N > 0, gains_N + gap / 29, 0.0), rtol=1e-9)


def test_one_player_gets_everything() -> None:
    for method in ("auto", "exact", "kernel_cv", "permutation", "audit"):
        result = estimate(lambda masks_MN: np.asarray(5.0 + 2.0 * masks_MN[:, 0]), 1, method=method)
        np.testing.assert_array_equal(result.values, [2.0])


def test_duplicate_players_are_equal() -> None:
    def game(masks_MN: MaskArray) -> FloatArray:
        return np.asarray(1.0 * (masks_MN[:, 0] | masks_MN[:, 1]) + masks_MN[:, 2])

    np.testing.assert_allclose(estimate(game, 3).values, [0.5, 0.5, 1.0], rtol=1e-12)


def test_a_game_that_changes_its_mind_is_found_out() -> None:
    calls = count()
    message = r"^value of coalition \[0, 1, 2\] is 0\.0 and then 1\.0, expected the same value each time$"
    with pytest.raises(AggregationError, match=message):
        estimate(lambda masks_MN: np.full(len(masks_MN), float(next(calls))), 3)


def test_asking_again_counts_and_keeps_the_budget() -> None:
    asked: list[int] = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.append(len(masks_MN))
        return additive(masks_MN)

    result = estimate(game, 4, budget=17)
    assert sum(asked) == result.num_evaluations == 17
    assert estimate(game, 4, budget=16).num_evaluations == 16


def test_examples_reach_every_method() -> None:
    per_example = by_examples(make_game("coverage", 8), num_examples=20, seed=2)
    exact = estimate(per_example, 8, num_examples=20)
    for method in ("kernel_cv", "permutation", "audit"):
        result = estimate(per_example, 8, method=method, budget=250, permutations=40, num_examples=20)
        np.testing.assert_allclose(result.values, exact.values, atol=5 * result.standard_errors.max())
        assert (result.standard_errors > 0.8 * exact.standard_errors).all()
    surrogate_KN = np.ones((20, 1)) * exact_values(make_game("coverage", 8), 8)
    result = estimate(per_example, 8, method="surrogate", budget=64, surrogate=surrogate_KN, num_examples=20)
    np.testing.assert_allclose(result.values, exact.values, rtol=1e-9)


def test_bad_input_names_itself() -> None:
    with pytest.raises(ConfigError, match=r"^num_players is 0, expected at least 1$"):
        estimate(additive, 0)
    with pytest.raises(
        ConfigError, match=r"^method is 'kernelcv', expected one of: .* \(did you mean 'kernel_cv'\?\)$"
    ):
        estimate(additive, 3, method="kernelcv")
    with pytest.raises(ConfigError, match=r"^tolerance is -1, expected a number in \[0, 1\]$"):
        estimate(additive, 3, tolerance=-1)
    with pytest.raises(ConfigError, match=r"^budget is 19 evaluations, expected at least 22 for 20 players$"):
        estimate(additive, 20, budget=19)
    with pytest.raises(
        ConfigError, match=r"^surrogate is None, expected values float64 \[N\] or \[K, N\], or a control$"
    ):
        estimate(additive, 20, method="surrogate")
    with pytest.raises(ConfigError, match=r"^surrogate has shape \(3,\), expected \(20,\) or \(None, 20\)$"):
        estimate(additive, 20, method="surrogate", surrogate=np.ones(3))
    with pytest.raises(ConfigError, match=r"^control 0 is of 3 players, expected 20$"):
        estimate(additive, 20, method="kernel_cv", controls=[LinearControl(np.ones(3))])
    with pytest.raises(AggregationError, match=r"^value of coalition \[\] is nan, expected a finite number$"):
        estimate(lambda masks_MN: np.full(len(masks_MN), np.nan), 3)
    with pytest.raises(ConfigError, match=r"^the game returned shape \(\), expected \(8,\)$"):
        estimate(lambda masks_MN: np.float64(1.0), 3)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("method", ["exact", "kernel_cv", "permutation", "surrogate", "audit"])
def test_the_samples_error_and_the_estimators_are_told_apart(method: str) -> None:
    game, examples_KN = make_game("coverage", 8), np.random.default_rng(1).normal(1, 0.1, (20, 8))
    result = estimate(
        by_examples(game, num_examples=20, seed=2),
        8,
        method=method,
        budget=257 if method == "exact" else 120,
        permutations=20,
        num_examples=20,
        surrogate=examples_KN if method == "surrogate" else None,
        tolerance=0,
    )
    estimator_N = result.estimator_standard_errors
    np.testing.assert_allclose(np.hypot(result.sample_standard_errors, estimator_N), result.standard_errors)
    assert (result.sample_standard_errors > 0).all()
    assert (estimator_N > 0).any() == (method != "exact")


@pytest.mark.parametrize("method", ["exact", "kernel_cv", "permutation", "audit"])
def test_without_examples_apart_there_is_no_error_of_a_sample(method: str) -> None:
    result = estimate(make_game("airport", 8), 8, method=method, budget=257, permutations=20)
    assert not result.sample_standard_errors.any()
    np.testing.assert_array_equal(result.estimator_standard_errors, result.standard_errors)


@pytest.mark.parametrize("num_examples", [None, 3])
@pytest.mark.parametrize("num_players", [1, 2, 3, 4, 5, 7, 9, 12, 13, 16, 30])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_accepts_the_budget_that_is_the_default(
    method: str, num_players: int, num_examples: int | None
) -> None:
    weights_N = np.arange(1.0, num_players + 1)

    def game(masks_MN: MaskArray) -> FloatArray:
        values_M = masks_MN @ weights_N
        return np.asarray(values_M if num_examples is None else np.repeat(values_M[:, None], num_examples, axis=1))

    def value() -> FloatArray:
        options = {"permutations": 20, "num_examples": num_examples, "surrogate": weights_N}
        return estimate(game, num_players, method=method, **options).values  # type: ignore[arg-type]

    if method == "exact" and num_players > MAX_PLAYERS:
        with pytest.raises(ConfigError, match=rf"^num_players is {num_players}, expected 1\.\.{MAX_PLAYERS} "):
            value()
    else:
        assert value().sum() == pytest.approx(weights_N.sum())
