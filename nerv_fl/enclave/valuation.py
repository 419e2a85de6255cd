"""The Shapley values of a round.

Up to `valuation.exact_max_nodes` players every coalition is evaluated, on `valuation.audit_samples`. Beyond, with 10
evaluations a player, KernelCV; with fewer each value is the midpoint surrogate

    phi_i = <grad U((x_empty + x_N) / 2), s P c (1 - beta1) w_i u_i / W_all>,

one gradient, exact for a game quadratic in the updates, with coalition evaluations auditing it and widening the
intervals. In the `mean` game, and under a rule that is not linear, the surrogate does not hold and KernelCV values any
cohort; under such a rule no control holds either, and it goes by coalitions alone.

With the method "none" there are no values. Nothing that the encoder becomes depends on them: they decide who is paid.

Shapes: M coalitions, N players, K search samples.
"""

from dataclasses import dataclass, replace

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.enclave.aggregate import LINEAR_RULES
from nerv_fl.enclave.coalition_game import RoundGame
from nerv_fl.shapley import KERNEL_CV_FROM, NOBODY, MaskArray, ShapleyResult, estimate, estimate_surrogate, no_values
from nerv_fl.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class Valuation:
    """Values of the players, the cohort's utility and the empty coalition's over no step at all."""

    result: ShapleyResult
    total: float
    empty: float


def method_of(num_players: int, *, config: RunConfig) -> str:
    """Return how so many players are valued: the settings' method, or what "auto" stands for."""
    settings = config.valuation
    if settings.method != "auto":
        return settings.method
    if num_players <= settings.exact_max_nodes:
        return "exact"
    by_masks = config.server.aggregation not in LINEAR_RULES or settings.game == "mean"
    return "kernel_cv" if by_masks or settings.evaluations >= KERNEL_CV_FROM * num_players else "surrogate"


def num_examples(num_players: int, *, config: RunConfig) -> int:
    """Return on how many search samples so many players are valued."""
    is_surrogate = method_of(num_players, config=config) == "surrogate"
    return config.valuation.gradient_samples if is_surrogate else config.valuation.audit_samples


def value_round(game: RoundGame, *, config: RunConfig, round_number: int) -> Valuation:
    """Return the Shapley values of a round's players.

    Args:
        game: The round's game.
        config: Method, budget and confidence.
        round_number: Names the random streams.

    Raises:
        ConfigError: If so many players cannot be valued with the budget.
        AggregationError: If a utility is not finite.
    """
    method = method_of(game.num_players, config=config)
    if method == NOBODY:
        result = no_values(game.num_players)
    elif method == "surrogate":
        result = _by_surrogate(game, config=config, round_number=round_number)
    else:
        result = _by_coalitions(game, method=method, config=config, round_number=round_number)
    return Valuation(result=result, total=game.total, empty=game.empty)


def _by_surrogate(game: RoundGame, *, config: RunConfig, round_number: int) -> ShapleyResult:
    settings = config.valuation
    return estimate_surrogate(
        game.first_order(),
        lambda masks_MN: game.per_example(masks_MN, num_examples=settings.audit_samples).mean(axis=1),
        audit_examples=settings.audit_samples,
        total=game.total,
        budget=settings.evaluations,
        confidence=settings.confidence,
        seed=config.seed,
        path=(round_number,),
    )


def _by_coalitions(game: RoundGame, *, method: str, config: RunConfig, round_number: int) -> ShapleyResult:
    """Return the values of those who sent anything, and exact zeros for the rest."""
    settings = config.valuation
    exact = method == "exact"
    playing_N = game.playing()
    if exact or not playing_N.any():
        playing_N = np.ones(game.num_players, dtype=np.bool_)
    num_playing = int(playing_N.sum())
    uses_controls = method in ("kernel_cv", "audit") and config.server.aggregation in LINEAR_RULES

    def among_playing(masks_MN: MaskArray) -> FloatArray:
        whole_MN = np.zeros((len(masks_MN), game.num_players), dtype=np.bool_)
        whole_MN[:, playing_N] = masks_MN
        return game.per_example(whole_MN, num_examples=game.num_examples)

    result = estimate(
        among_playing,
        num_playing,
        method=method,
        budget=2**num_playing if exact else settings.evaluations,
        permutations=settings.permutations,
        controls=game.controls(playing_N) if uses_controls else (),
        tolerance=settings.tolerance,
        num_examples=game.num_examples,
        confidence=settings.confidence,
        seed=config.seed,
        path=(round_number,),
    )

    def spread(column: FloatArray) -> FloatArray:
        whole_N = np.zeros(game.num_players)
        whole_N[playing_N] = column
        return whole_N

    return replace(
        result,
        values=spread(result.values),
        standard_errors=spread(result.standard_errors),
        sample_standard_errors=spread(result.sample_standard_errors),
        ci_low=spread(result.ci_low),
        ci_high=spread(result.ci_high),
    )
