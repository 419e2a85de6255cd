"""Audited values: fit on half of the evaluations, measure on the other half what the fit is wrong by. Unbiased.

    phi = phi(fit) + E[ what an unbiased estimator says of v - fit ]

The fit is KernelCV's. The residual's values come from pairs drawn independently: with c members at a chance
proportional to 1 / (c (N - c)), and r(C) = [v(C) - v(N - C)] / 2 less the fit's own,

    phi_i(residual) = total / N + E[ (1_{i in C} - c / N) r(C) ] / lambda,      lambda = 1/2 - E[c (c - 1)] / (N (N -
    1)),

which is kernel SHAP's regression solved with the expected, not the sampled, design: unbiased, whatever the fit was.
The price is half the evaluations, so the values scatter more than KernelCV's; what is bought is an error that rests on
no belief.

Sources: I. Covert and S.-I. Lee, "Improving KernelSHAP", AISTATS 2021, equation 9 (the unbiased estimator); R. T.
Witter et al., "Regression-adjusted Monte Carlo estimators for Shapley values and probabilistic values", 2025,
algorithm 1 (the residual).

Shapes: P pairs, N players, J controls, K validation examples.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream
from nerv_fl.shapley.control_variates import Control
from nerv_fl.shapley.game import CountedGame, Game
from nerv_fl.shapley.gaussian_process import condition, predict
from nerv_fl.shapley.kernel_cv import choose_prior, odd_parts, paired_design
from nerv_fl.shapley.paired_sampling import draw_pairs
from nerv_fl.shapley.result import ShapleyResult, interval, sample_errors
from nerv_fl.types import BoolArray, FloatArray

MIN_BUDGET: Final = 18
"""The empty coalition, the grand one, and four pairs on either side."""


def estimate_audit(
    game: Game,
    num_players: int,
    *,
    budget: int,
    controls: Sequence[Control] = (),
    num_examples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    path: tuple[int | str, ...] = (),
) -> ShapleyResult:
    """Return KernelCV's values from half of the evaluations, corrected by an unbiased estimate from the other half.

    Args:
        game: Masks [M, N] -> float64 [M], or [M, K] with `num_examples`.
        num_players: N, at least 2.
        budget: Most coalitions to evaluate, at least 18.
        controls: Games of known value.
        num_examples: K, at least 2, or None.
        confidence: Of the two-sided intervals, in (0, 1).
        seed: Seed of the pairs drawn.
        path: What distinguishes this valuation from others of the seed.

    Returns:
        The result. `efficiency_gap` is the correction's, closed exactly; `crosscheck_z` the largest correction in its
        standard errors: what is far above 3 says that the fit was wrong.

    Raises:
        ConfigError: If the budget does not suffice.
        AggregationError: If a value is not finite.
    """
    if num_players < 2:  # noqa: PLR2004
        raise ConfigError(f"num_players is {num_players}, expected at least 2")
    if budget < MIN_BUDGET:
        raise ConfigError(f"budget is {budget} evaluations, expected at least {MIN_BUDGET}")
    counted = CountedGame(game, num_players, budget=budget, num_examples=num_examples)
    num_pairs = (budget - 2) // 2
    fitted_PN = draw_pairs(num_players, num_pairs // 2, seed=seed, path=path)
    audited_PN = _independent_pairs(num_players, num_pairs - num_pairs // 2, seed=seed, path=path)
    design = paired_design(np.concatenate([fitted_PN, audited_PN]), controls)
    num_fitted = len(fitted_PN) + 1
    odd_PK = odd_parts(counted, design.members_PN)
    fit = design.first(num_fitted)
    prior = choose_prior(fit, odd_PK[:num_fitted].mean(axis=1))
    posterior = condition(fit, odd_PK[:num_fitted], prior)
    residual_PK = odd_PK[num_fitted:] - predict(design, posterior, prior)
    total_K = 2 * odd_PK[0] - posterior.values_NK.sum(axis=0)
    centred_PN = (audited_PN - audited_PN.mean(axis=1, keepdims=True)) / _contrast(num_players)
    correction_NK = total_K / num_players + centred_PN.T @ residual_PK / len(audited_PN)
    errors_N = sample_errors(centred_PN * residual_PK.mean(axis=1)[:, None])
    per_example_NK = posterior.values_NK + correction_NK
    sample_N = sample_errors(per_example_NK.T) if num_examples else np.zeros(num_players)
    values_N, all_errors_N = per_example_NK.mean(axis=1), np.hypot(errors_N, sample_N)
    ci_low_N, ci_high_N = interval(values_N, all_errors_N, confidence=confidence)
    known_N = errors_N > 0
    return ShapleyResult(
        values=values_N,
        standard_errors=all_errors_N,
        sample_standard_errors=sample_N,
        ci_low=ci_low_N,
        ci_high=ci_high_N,
        num_evaluations=counted.num_evaluations,
        method="audit",
        stop_reason="budget",
        efficiency_gap=2 * float(odd_PK[0].mean()) - float(values_N.sum()),
        crosscheck_z=float(np.max(np.abs(correction_NK.mean(axis=1))[known_N] / errors_N[known_N], initial=0.0)),
    )


def _independent_pairs(num_players: int, num_pairs: int, *, seed: int, path: tuple[int | str, ...]) -> BoolArray:
    """Return pairs drawn one by one, with replacement: that is what makes the mean unbiased and its error plain."""
    draw = stream(seed, "shapley", "audit pairs", *path)
    sizes = np.arange(1, num_players)
    sizes_P = draw.choice(sizes, size=num_pairs, p=_size_chances(num_players))
    ranks_PN = np.argsort(draw.random((num_pairs, num_players)), axis=1)
    return np.asarray(ranks_PN < sizes_P[:, None])


def _size_chances(num_players: int) -> FloatArray:
    sizes = np.arange(1, num_players)
    weights = 1 / (sizes * (num_players - sizes))
    return np.asarray(weights / weights.sum())


def _contrast(num_players: int) -> float:
    """Return lambda."""
    sizes = np.arange(1, num_players)
    together = float((_size_chances(num_players) * sizes * (sizes - 1)).sum()) / (num_players * (num_players - 1))
    return 0.5 - together
