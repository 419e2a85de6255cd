"""The midpoint surrogate: Shapley values from one gradient, audited by evaluating coalitions.

In a game v(C) = U(x + sum_C d_i) - U(x) with quadratic U, gradient g and Hessian H at x,

    phi_i = <g, d_i> + 1/2 <d_i, H sum_j d_j> = <grad U(x + 1/2 sum_j d_j), d_i>:

one gradient, at the midpoint, values everyone. It is the midpoint rule for Owen's diagonal integral of the game's
multilinear extension, and the caller evaluates it for each validation example.

Audit. The residual game r(C) = v(C) - v(empty) - sum_C phihat_i has the surrogate's errors psi_i as its Shapley values.
Let r have degree 2, r(C) = sum_C a_i + sum_{i<j in C} b_ij, so psi_i = a_i + 1/2 sum_j b_ij. With s_i = +1 for members
and -1 for others, a member's indicator is (1 + s_i) / 2, and the part of r that changes sign with s is

    a(C) = [r(C) - r(N-C)] / 2 = 1/2 sum_i s_i a_i + 1/4 sum_{i<j} b_ij (s_i + s_j) = 1/2 sum_i s_i psi_i.

For uniform C the signs are independent, so E a(C)^2 = 1/4 sum_i psi_i^2, and the root mean square error of a value is
2 rms(a) / sqrt(N). It is a typical size over the players, not a bound for each. At higher degrees it is approximate: a
unanimity game of three players has psi_i = 1/3 and 2 rms(a) / sqrt(3) = 0.29.

Sources: G. Owen, "Multilinear extensions of games", Management Science 18 (1972), the diagonal formula; complement
pairs as in I. Covert and S.-I. Lee, "Improving KernelSHAP", AISTATS (2021), variance reduction by paired sampling.

Shapes: K validation examples, N players, M coalitions.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.rng import stream
from nerv_fl.shapley.exact import all_coalitions
from nerv_fl.shapley.game import CountedGame, Game, MaskArray
from nerv_fl.shapley.result import ShapleyResult, interval, sample_errors
from nerv_fl.types import FloatArray

MIN_BUDGET: Final = 4
"""The empty coalition, the grand one, and one complement pair."""

_ROUNDING: Final = 1e-12
"""Residuals below this share of the largest audited value are rounding."""


def estimate_surrogate(
    per_example_KN: FloatArray,
    audit_game: Game,
    *,
    audit_examples: int,
    total: float,
    budget: int,
    confidence: float = 0.95,
    seed: int = 0,
    path: Sequence[int | str] = (),
) -> ShapleyResult:
    """Return the midpoint surrogate's values with intervals that a coalition audit widens.

    The values are shifted equally so that they sum to `total`: of all corrections that restore efficiency this is the
    smallest, and it removes what the players' errors have in common. The audit measures what is left after the same
    shift: standard_error^2 = validation sample's^2 + audit's^2.

    Args:
        per_example_KN: float64 [K, N]: the surrogate's value of player i on validation example k, K >= 2. A null player
            (zero displacement) has a column of exact zeros.
        audit_game: Masks [M, N] -> float64 [M], the mean over the first `audit_examples` examples.
        audit_examples: In 1..K.
        total: v(N) - v(empty) on all K examples. Without any displacement it is rounding, and nobody gets it.
        budget: Most coalitions to evaluate, at least 4: the empty and the grand one, and complement pairs.
        confidence: Of the two-sided intervals, in (0, 1).
        seed: Seed of the run.
        path: What distinguishes this valuation from the run's others, such as the round.

    Returns:
        The result. `efficiency_gap` is v(N) - v(empty) - sum_i phihat_i on the audit's examples before the shift, and
        `crosscheck_z` the t statistic of the hypothesis that the surrogate's errors have mean 0.

    Raises:
        ConfigError: If an argument has the wrong shape or is out of range.
        AggregationError: If a value is not finite.

    Guarantees:
        A null player has value and standard error exactly 0. At most `budget` coalitions are evaluated.
    """
    _check(per_example_KN, audit_examples=audit_examples, total=total, budget=budget)
    num_players = per_example_KN.shape[1]
    active_N = np.asarray(per_example_KN.any(axis=0), dtype=np.bool_)
    values_N = _shifted(per_example_KN.mean(axis=0), total, active_N=active_N)

    predicted_N = per_example_KN[:audit_examples].mean(axis=0)
    counted = CountedGame(audit_game, num_players, budget=budget)
    grand, odd_M, masks_MN = _audit(counted, num_players, num_pairs=(budget - 2) // 2, seed=seed, path=path)
    signs_MN = np.where(masks_MN, 0.5, -0.5)
    audit_error = _rms_error(odd_M - signs_MN @ _shifted(predicted_N, grand, active_N=active_N), int(active_N.sum()))

    sample_N = sample_errors(per_example_KN)
    errors_N = np.where(active_N, np.hypot(sample_N, audit_error), 0.0)
    ci_low_N, ci_high_N = interval(values_N, errors_N, confidence=confidence)
    gap = grand - float(predicted_N.sum())
    return ShapleyResult(
        values=values_N,
        standard_errors=errors_N,
        sample_standard_errors=sample_N,
        ci_low=ci_low_N,
        ci_high=ci_high_N,
        num_evaluations=counted.num_evaluations,
        method="surrogate",
        stop_reason="enumerated" if len(masks_MN) == 2 ** (num_players - 1) else "budget",
        efficiency_gap=gap,
        crosscheck_z=_gap_z(gap, audit_error, num_active=int(active_N.sum()), scale=float(np.abs(odd_M).max())),
    )


def draw_coalitions(num_players: int, num_pairs: int, *, seed: int, path: Sequence[int | str]) -> MaskArray:
    """Return one coalition of each complement pair: uniform draws, or every pair if `num_pairs` suffices for all.

    Returns:
        Boolean [M, N], M <= num_pairs.
    """
    if 2 ** (num_players - 1) <= num_pairs:
        return all_coalitions(num_players)[1::2]
    return stream(seed, "shapley", "audit", *path).random((num_pairs, num_players)) < 1 / 2


def _audit(
    game: CountedGame, num_players: int, *, num_pairs: int, seed: int, path: Sequence[int | str]
) -> tuple[float, FloatArray, MaskArray]:
    """Return v(N) - v(empty), [v(C) - v(N-C)] / 2 for each pair drawn, and the coalitions C."""
    masks_MN = draw_coalitions(num_players, num_pairs, seed=seed, path=path)
    ends_2N = np.array([[False], [True]]).repeat(num_players, axis=1)
    values = game(np.concatenate([ends_2N, masks_MN, ~masks_MN]))
    empty, grand = values[:2]
    inside_M, outside_M = np.split(values[2:], 2)
    return float(grand - empty), (inside_M - outside_M) / 2, masks_MN


def _shifted(values_N: FloatArray, total: float, *, active_N: MaskArray) -> FloatArray:
    """Return the values, those of active players shifted equally, with sum `total`; zeros if nobody is active."""
    gap = total - float(values_N.sum())
    return np.where(active_N, values_N + gap / max(int(active_N.sum()), 1), 0.0)


def _rms_error(odd_residuals_M: FloatArray, num_active: int) -> float:
    """Return the root mean square error of an active player's value, 2 rms(a) / sqrt(N)."""
    return 2 * float(np.sqrt(np.mean(odd_residuals_M**2) / max(num_active, 1)))


def _gap_z(gap: float, audit_error: float, *, num_active: int, scale: float) -> float:
    """Return gap / sqrt(N) over the errors' standard deviation: t with N - 1 degrees of freedom if their mean is 0."""
    if gap == 0 or num_active <= 1:
        return 0.0
    deviation = audit_error * np.sqrt(num_active / (num_active - 1))
    return float(gap / np.sqrt(num_active) / max(deviation, _ROUNDING * max(scale, abs(gap))))


def _check(per_example_KN: FloatArray, *, audit_examples: int, total: float, budget: int) -> None:
    shape = per_example_KN.shape
    if per_example_KN.dtype != np.float64 or per_example_KN.ndim != 2 or shape[0] <= 1 or shape[1] == 0:  # noqa: PLR2004
        raise ConfigError(
            f"per_example is {per_example_KN.dtype} of shape {shape}, expected float64 of shape (K >= 2, N >= 1)"
        )
    if not 1 <= audit_examples <= shape[0]:
        raise ConfigError(f"audit_examples is {audit_examples}, expected 1..{shape[0]}, the examples there are")
    if budget < MIN_BUDGET:
        raise ConfigError(f"budget is {budget} evaluations, expected at least {MIN_BUDGET}")
    if not np.isfinite(total):
        raise AggregationError(f"total value is {total}, expected a finite number")
    if not np.isfinite(per_example_KN).all():
        player = int(np.argmin(np.isfinite(per_example_KN).all(axis=0)))
        raise AggregationError(f"surrogate values of player {player} are not finite, expected finite numbers")
