"""The round's game on the real encoder: who brought nothing is worth nothing, and estimates agree with exact values.

Shapes: N players, K search samples, P parameters.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from nerv_fl.config import Flat, RunConfig
from nerv_fl.enclave.aggregate import OptimizerState, aggregate, contributions, next_direction
from nerv_fl.enclave.coalition_game import RoundGame
from nerv_fl.enclave.evaluation import Pools
from nerv_fl.enclave.gate import SEARCH, one_step_per_chain, search_step
from nerv_fl.enclave.valuation import Valuation, value_round
from nerv_fl.shapley import Control, LinearControl
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows
from tests.federation.pretrained import Pretrained, pretrained_run

NUM_NODES = 6
SMALL_STEP: Flat = {"server.learning_rate": 0.001}
"""At this step the game is nearly quadratic. At 0.005 the surrogate's relative error is 0.14, not 0.004."""


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrained_run()


@pytest.fixture(scope="module")
def config(pretrained: Pretrained) -> RunConfig:
    return pretrained.settings(SMALL_STEP)


@pytest.fixture(scope="module")
def pools(pretrained: Pretrained, config: RunConfig) -> Iterator[Pools]:
    with pretrained.pools(config) as opened:
        yield opened


def make_game(
    updates_NP: Vector,
    weights_N: npt.NDArray[np.float64],
    *,
    pretrained: Pretrained,
    pools: Pools,
    optimizer: OptimizerState | None = None,
    noise_P: Vector | None = None,
    changes: Flat | None = None,
) -> RoundGame:
    """Return the game of a round with these updates, as the enclave sets it up."""
    config, theta_P = pretrained.settings(SMALL_STEP | (changes or {})), pretrained.weights
    shares = contributions(Rows.of(updates_NP), weights_N, config=config.server)
    noise_P = np.zeros_like(theta_P) if noise_P is None else noise_P
    aggregate_P = aggregate(shares, config=config.server) + noise_P
    direction, _ = next_direction(
        theta_P,
        optimizer or OptimizerState.empty(len(theta_P)),
        aggregate_P=aggregate_P,
        free_P=0.05 * pools.data_free_descent(theta_P),
        config=config.server,
    )
    candidate = search_step(direction, aggregate_P, evaluator=pools, config=config.gate)
    assert candidate.step > 0
    return RoundGame(
        direction,
        shares,
        shares_N=weights_N / weights_N.sum(),
        noise_P=noise_P,
        candidate=candidate,
        evaluator=pools,
        config=config,
        num_examples=config.valuation.gradient_samples,
    )


@pytest.fixture(scope="module")
def honest(pretrained: Pretrained) -> Vector:
    return np.stack(list(pretrained.honest_updates.values()))


@pytest.fixture(scope="module")
def game(honest: Vector, pretrained: Pretrained, pools: Pools) -> RoundGame:
    return make_game(honest, np.ones(NUM_NODES), pretrained=pretrained, pools=pools)


def valued(game: RoundGame, method: str, config: RunConfig, *, evaluations: int = 64) -> Valuation:
    """Value a game by one method."""
    valuation = replace(config.valuation, method=method, evaluations=evaluations, audit_samples=32)
    return value_round(game, config=replace(config, valuation=valuation), round_number=1)


@pytest.fixture(scope="module")
def exact(game: RoundGame, config: RunConfig) -> Valuation:
    return valued(game, "exact", config)


def test_the_empty_and_the_grand_coalition_are_the_ends(game: RoundGame) -> None:
    ends_2N = np.array([[False] * NUM_NODES, [True] * NUM_NODES])

    empty_K, grand_K = game.per_example(ends_2N, num_examples=game.num_examples)

    assert not empty_K.any()
    assert grand_K.mean() == pytest.approx(game.total, abs=1e-9)
    assert game.total > 0


def test_what_the_empty_coalition_gains_is_counted_apart(honest: Vector, pretrained: Pretrained, pools: Pools) -> None:
    """total + empty is what the whole step gained over the encoder that stood."""
    momentum_P = np.asarray(0.3 * honest.mean(axis=0), dtype=np.float32)
    optimizer = OptimizerState(momentum_P=momentum_P, second_P=np.square(momentum_P), num_rounds=1)

    game = make_game(honest, np.ones(NUM_NODES), pretrained=pretrained, pools=pools, optimizer=optimizer)

    ids = one_step_per_chain(np.arange(game.num_examples), pools.num_steps())
    before, empty = (item.loss_B for item in pools.measure([pretrained.weights, game.empty_P], SEARCH, ids))
    assert game.empty == pytest.approx((before - empty).mean())
    assert game.empty != 0


def test_exact_values_are_efficient(exact: Valuation) -> None:
    assert exact.result.method == "exact"
    assert exact.result.num_evaluations == 2**NUM_NODES
    assert exact.result.values.sum() == pytest.approx(exact.total, abs=1e-9)


def test_the_surrogate_agrees_with_the_exact_values(game: RoundGame, exact: Valuation, config: RunConfig) -> None:
    """The fixed game is nearly quadratic, for which the midpoint is exact; relative L2 error measured: 0.004."""
    surrogate = valued(game, "surrogate", config)

    error = np.linalg.norm(surrogate.result.values - exact.result.values)
    assert surrogate.result.method == "surrogate"
    assert error / np.linalg.norm(exact.result.values) < 0.01
    assert surrogate.result.values.sum() == pytest.approx(surrogate.total)
    inside = (surrogate.result.ci_low <= exact.result.values) & (exact.result.values <= surrogate.result.ci_high)
    assert inside.all()


@pytest.mark.parametrize("method", ["exact", "surrogate", "kernel_cv", "audit", "permutation"])
def test_a_free_rider_is_worth_exactly_nothing(
    method: str, honest: Vector, *, pretrained: Pretrained, pools: Pools, config: RunConfig
) -> None:
    with_rider_NP = honest.copy()
    with_rider_NP[2] = 0.0

    game = make_game(with_rider_NP, np.ones(NUM_NODES), pretrained=pretrained, pools=pools)
    result = valued(game, method, config, evaluations=30).result

    assert (result.values[2], result.standard_errors[2], result.ci_low[2], result.ci_high[2]) == (0, 0, 0, 0)
    assert np.abs(result.values[[0, 1, 3, 4, 5]]).min() > 0


def test_a_sign_flipped_update_is_worth_less_than_nothing(
    honest: Vector, *, pretrained: Pretrained, pools: Pools, config: RunConfig
) -> None:
    flipped_NP = honest.copy()
    flipped_NP[5] = -honest[:5].mean(axis=0)

    game = make_game(flipped_NP, np.ones(NUM_NODES), pretrained=pretrained, pools=pools)
    result = valued(game, "surrogate", config).result

    assert result.values[5] < 0
    assert result.values[5] == result.values.min()


def test_splitting_an_identity_gains_nothing(
    honest: Vector, exact: Valuation, *, pretrained: Pretrained, pools: Pools, config: RunConfig
) -> None:
    """Two halves with half the weight each are together worth what the whole was, within 0.5 % of the largest value."""
    split_NP = np.concatenate([honest, honest[:1]])
    weights_N = np.array([0.5, 1, 1, 1, 1, 1, 0.5])

    game = make_game(split_NP, weights_N, pretrained=pretrained, pools=pools)
    values_N = valued(game, "exact", config).result.values

    gain = values_N[0] + values_N[6] - exact.result.values[0]
    assert abs(gain) < 0.005 * np.abs(exact.result.values).max()
    assert game.total == pytest.approx(exact.total, rel=1e-3)


def test_noise_of_the_mean_is_in_every_coalition(honest: Vector, pretrained: Pretrained, pools: Pools) -> None:
    noise_P = np.asarray(np.random.default_rng(1).normal(0, 1e-4, honest.shape[1]), dtype=np.float32)

    game = make_game(honest, np.ones(NUM_NODES), pretrained=pretrained, pools=pools, noise_P=noise_P)

    grand_K = game.per_example(np.ones((1, NUM_NODES), dtype=np.bool_), num_examples=game.num_examples)
    assert grand_K.mean() == pytest.approx(game.total, abs=1e-6)


def test_first_order_products_are_the_slope_of_the_game(game: RoundGame) -> None:
    """Summed over players they are the rate along the whole step, which the midpoint rule makes the whole change."""
    assert game.first_order().shape == (game.num_examples, NUM_NODES)
    assert game.first_order().mean(axis=0).sum() == pytest.approx(game.total, rel=0.01)


@pytest.mark.parametrize("method", ["kernel_cv", "audit", "permutation"])
def test_every_method_agrees_with_the_exact_values(
    method: str, game: RoundGame, *, exact: Valuation, config: RunConfig
) -> None:
    result = valued(game, method, config, evaluations=40).result
    assert result.num_evaluations <= 40
    assert result.values.sum() == pytest.approx(exact.result.values.sum(), rel=1e-9)
    np.testing.assert_allclose(result.values, exact.result.values, rtol=0.05)


@pytest.fixture(scope="module")
def mean_game(honest: Vector, pretrained: Pretrained, pools: Pools) -> RoundGame:
    changes: Flat = {"valuation.game": "mean", "valuation.curvature": True, "valuation.method": "exact"}
    return make_game(honest, np.ones(NUM_NODES), pretrained=pretrained, pools=pools, changes=changes)


def test_a_lone_member_of_the_mean_game_takes_the_whole_step(mean_game: RoundGame, game: RoundGame) -> None:
    masks_3N = np.stack([np.ones(NUM_NODES) > 0, np.zeros(NUM_NODES) > 0, np.arange(NUM_NODES) == 0])
    everyone_P, nobody_P, alone_P = game.candidates(masks_3N)
    mean_everyone_P, mean_nobody_P, mean_alone_P = mean_game.candidates(masks_3N)
    np.testing.assert_array_equal(mean_everyone_P, everyone_P)
    np.testing.assert_array_equal(mean_nobody_P, nobody_P)
    moved_P, mean_moved_P = alone_P - nobody_P, mean_alone_P - nobody_P
    assert np.isclose(mean_moved_P, NUM_NODES * moved_P, atol=1e-5).mean() > 0.999  # all but the encoder's origin


def test_controls_foretell_the_games(mean_game: RoundGame, game: RoundGame) -> None:
    everyone_N = np.ones(NUM_NODES, dtype=np.bool_)
    masks_MN = np.array([[True] * 6, [True] + [False] * 5, [False, True, True] + [False] * 3, [False] + [True] * 5])
    for played, tolerance in ((game, 0.05), (mean_game, 0.3)):
        control = played.controls(everyone_N)[-1]
        values_M = played.per_example(masks_MN, num_examples=played.num_examples).mean(axis=1)
        np.testing.assert_allclose(control(masks_MN), values_M, atol=tolerance * np.abs(values_M).max())


@pytest.mark.slow
def test_the_mean_game_pays_splitters_and_the_fixed_game_does_not(
    honest: Vector, pretrained: Pretrained, pools: Pools
) -> None:
    gained, split_NP, weights_N = {}, np.concatenate([honest, honest[:1]]), np.array([0.5, 1, 1, 1, 1, 1, 0.5])
    for kind in ("fixed", "mean"):
        changes: Flat = {"valuation.game": kind, "valuation.method": "exact"}
        chosen = pretrained.settings(SMALL_STEP | changes)
        games = [
            make_game(updates_NP, weights, pretrained=pretrained, pools=pools, changes=changes)
            for updates_NP, weights in ((honest, np.ones(NUM_NODES)), (split_NP, weights_N))
        ]
        whole, split = (value_round(item, config=chosen, round_number=1).result.values for item in games)
        gained[kind] = (split[0] + split[6]) / whole[0] - 1
    assert abs(gained["fixed"]) < 0.02
    assert abs(gained["mean"]) > 0.05


@pytest.mark.parametrize(
    ("method", "limit", "rule", "expected"),
    [
        ("auto", 12, "mean", "exact"),
        ("auto", 5, "mean", "surrogate"),
        ("surrogate", 12, "mean", "surrogate"),
        ("auto", 5, "median", "kernel_cv"),
        ("auto", 12, "median", "exact"),
        ("exact", 12, "mean", "exact"),
        ("kernel_cv", 12, "mean", "kernel_cv"),
        ("audit", 12, "median", "audit"),
        ("permutation", 12, "trimmed_mean", "permutation"),
    ],
)
def test_which_method_values_which_round(
    method: str, limit: int, *, rule: str, expected: str, game: RoundGame, config: RunConfig
) -> None:
    chosen = replace(
        config,
        valuation=replace(config.valuation, method=method, exact_max_nodes=limit, evaluations=40),
        server=replace(config.server, aggregation=rule),
    )

    assert value_round(CheapGame(game, chosen), config=chosen, round_number=1).result.method == expected


class CheapGame(RoundGame):
    """A game with the same players and no encoder: the number of members, on 8 samples."""

    def __init__(self, game: RoundGame, config: RunConfig) -> None:
        self._config = config
        self._shares = game._shares
        self.empty_loss_K = np.ones(8)
        self.sample_ids = np.arange(8)
        self._candidate = game._candidate

    def per_example(self, masks_MN: npt.NDArray[np.bool_], *, num_examples: int) -> npt.NDArray[np.float64]:
        return np.repeat(masks_MN.sum(axis=1, dtype=np.float64)[:, None], num_examples, axis=1)

    def first_order(self) -> npt.NDArray[np.float64]:
        return np.ones((8, NUM_NODES))

    def controls(self, playing_N: npt.NDArray[np.bool_]) -> list[Control]:
        return [LinearControl(np.ones(int(playing_N.sum())))]
