"""What an estimator returns: values, how far they may be off, and what they cost.

Shapes: N players.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from nerv_fl.types import FloatArray
from nerv_fl.validation import in_range

NOBODY: Final = "none"
"""The method that values nobody."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapleyResult:
    """Shapley values of N players with their errors.

    Attributes:
        values: float64 [N], in the game's unit.
        standard_errors: float64 [N]: the validation sample's and, in quadrature, the estimator's own.
        sample_standard_errors: float64 [N], the validation sample's part of them; 0 where no examples are kept apart.
        ci_low: float64 [N], lower ends of the two-sided normal intervals.
        ci_high: float64 [N], upper ends.
        num_evaluations: Distinct coalitions evaluated.
        method: "exact", "kernel_cv", "audit", "permutation" or "surrogate"; "none" where nobody was valued.
        stop_reason: "enumerated" if every coalition was seen, "budget" if the budget ended it, "tolerance" if the
            intervals were narrow enough, "permutations" if every order was walked.
        efficiency_gap: v(N) - v(empty) - sum of the estimates, as the estimator left it, before it was closed.
        crosscheck_z: Disagreement with an independent look at the game, in its standard errors; each method says which.
            0 where there is nothing to check.
    """

    values: FloatArray
    standard_errors: FloatArray
    sample_standard_errors: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    num_evaluations: int
    method: str
    stop_reason: str
    efficiency_gap: float
    crosscheck_z: float

    @property
    def estimator_standard_errors(self) -> FloatArray:
        """What coalitions that were not evaluated leave open, float64 [N]: the rest of the standard errors."""
        return np.sqrt(np.maximum(self.standard_errors**2 - self.sample_standard_errors**2, 0.0))


def no_values(num_players: int) -> ShapleyResult:
    """Return what stands where nobody was valued: numbers that do not exist are NaN, never zero."""
    nothing_N = np.full(num_players, np.nan)
    return ShapleyResult(
        values=nothing_N,
        standard_errors=nothing_N,
        sample_standard_errors=nothing_N,
        ci_low=nothing_N,
        ci_high=nothing_N,
        num_evaluations=0,
        method=NOBODY,
        stop_reason="no values were asked for",
        efficiency_gap=0.0,
        crosscheck_z=0.0,
    )


def interval(
    values_N: FloatArray, standard_errors_N: FloatArray, *, confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Return the two-sided normal interval: value -+ z(1/2 + confidence/2) standard errors.

    Args:
        values_N: float64 [N].
        standard_errors_N: float64 [N], at least 0.
        confidence: In (0, 1).

    Returns:
        Lower and upper ends, float64 [N] each.

    Raises:
        ConfigError: If the confidence is not in (0, 1).

    >>> low, high = interval(np.array([1.0]), np.array([0.5]), confidence=0.95)
    >>> f"{low[0]:.4f} {high[0]:.4f}"
    '0.0200 1.9800'
    """
    in_range("confidence", confidence, low=0, high=1 - 1e-12, open_low=True)
    half_N = NormalDist().inv_cdf(0.5 + confidence / 2) * standard_errors_N
    return values_N - half_N, values_N + half_N


def sample_errors(per_example_KN: FloatArray) -> FloatArray:
    """Return the standard error of the mean over the validation examples: std / sqrt(K), one degree of freedom lost.

    Args:
        per_example_KN: float64 [K, N], K >= 2.

    Returns:
        float64 [N].
    """
    return np.asarray(per_example_KN.std(axis=0, ddof=1) / np.sqrt(len(per_example_KN)), dtype=np.float64)
