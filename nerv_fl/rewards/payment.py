"""Who is paid what: a round's pool divided in integer NANO.

    payout_i = pool * phi_i+ R_i / sum_j phi_j+ R_j

with phi+ the lower confidence bound of the value, cut at 0, and R the reputation. Scores and reputations are floats,
which are exact fractions; from there on everything is integer arithmetic, so payouts sum to the pool to the last NANO
and do not depend on the machine. Noise around zero has a lower bound below zero and earns nothing.

Shapes: N nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from statistics import NormalDist

import numpy as np

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.types import FloatArray
from nerv_fl.validation import in_range


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How a round's money was divided: what each node gets, and what the next round starts with, in NANO."""

    payouts_nano: tuple[int, ...]
    carried_nano: int


def lower_bounds(values_N: FloatArray, standard_errors_N: FloatArray, *, confidence: float) -> FloatArray:
    """Return the one-sided normal lower bounds: value - z(confidence) standard errors.

    Args:
        values_N: float64 [N].
        standard_errors_N: float64 [N], at least 0; the validation sample's error included.
        confidence: In [0.5, 1).

    Returns:
        float64 [N], of any sign.

    Raises:
        ConfigError: If the confidence is out of range.

    >>> f"{lower_bounds(np.array([1.0]), np.array([0.5]), confidence=0.9)[0]:.4f}"
    '0.3592'
    """
    in_range("confidence", confidence, low=0.5, high=1 - 1e-12)
    return values_N - NormalDist().inv_cdf(confidence) * standard_errors_N


def pay(pool_nano: int, scores_N: FloatArray, *, reputations_N: FloatArray) -> list[int]:
    """Divide a pool in proportion to score times reputation, by largest remainder; ties go to the lower index.

    Args:
        pool_nano: NANO, at least 0.
        scores_N: float64 [N], phi+: finite, at least 0.
        reputations_N: float64 [N], in [0, 1].

    Returns:
        N payouts in NANO, all 0 if every product is 0.

    Raises:
        ConfigError: If the pool or a reputation is out of range, or the lengths differ.
        AggregationError: If a score is negative or not finite.

    Guarantees:
        Where a product is positive the payouts sum to the pool exactly. Each is within 1 NANO of its exact share, and
        grows or stays as its node's score grows.

    Source: Hamilton's method; M. L. Balinski and H. P. Young, "Fair Representation" (1982), appendix A.

    >>> pay(100, np.array([1.0, 1.0, 1.0, 0.0]), reputations_N=np.array([0.3, 0.3, 0.3, 1.0]))
    [34, 33, 33, 0]
    """
    _check_payment(pool_nano, scores_N, reputations_N)
    weights = _integer_weights(scores_N.tolist(), reputations_N.tolist())
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    shares = [divmod(pool_nano * weight, whole) for weight in weights]
    payouts = [share for share, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda node: (-shares[node][1], node))
    for node in by_remainder[: pool_nano - sum(payouts)]:
        payouts[node] += 1
    return payouts


def settle(
    pool_nano: int, carried_nano: int, *, accepted: bool, bounds_N: FloatArray, reputations_N: FloatArray
) -> Settlement:
    """Pay an accepted round from its pool and what was carried; carry everything if it earns nobody anything.

    Args:
        pool_nano: The round's own pool, at least 0.
        carried_nano: What earlier rounds left, at least 0.
        accepted: Whether the gate accepted the round.
        bounds_N: float64 [N], lower bounds of the values; negative ones count as 0. Not read in a rejected round.
        reputations_N: float64 [N], in [0, 1].

    Raises:
        ConfigError, AggregationError: As `pay` does.

    Guarantees:
        Payouts and what is carried on sum to pool_nano + carried_nano exactly; one of the two is 0.
    """
    for name, amount in (("pool_nano", pool_nano), ("carried_nano", carried_nano)):
        if amount < 0:
            raise ConfigError(f"{name} is {amount}, expected at least 0")
    available = pool_nano + carried_nano
    payouts = [0] * len(bounds_N)
    if accepted:
        payouts = pay(available, np.maximum(bounds_N, 0.0), reputations_N=reputations_N)
    return Settlement(payouts_nano=tuple(payouts), carried_nano=available - sum(payouts))


def gini(payouts_nano: Sequence[int]) -> float | None:
    """Return how unequal payouts are: sum_ij |x_i - x_j| / (2 n sum x), 0 for equal ones, (n - 1) / n if one gets all.

    Args:
        payouts_nano: NANO, at least 0 each; those who get nothing count.

    Returns:
        None if nothing was paid.

    Source: C. Gini, "Variabilita e mutabilita" (1912).

    >>> gini([5, 5, 5]), gini([0, 0, 9])
    (0.0, 0.6666666666666666)
    """
    total = sum(payouts_nano)
    if total == 0:
        return None
    ranked = sum((2 * rank - len(payouts_nano) - 1) * paid for rank, paid in enumerate(sorted(payouts_nano), 1))
    return ranked / (len(payouts_nano) * total)


def _integer_weights(scores: Sequence[float], reputations: Sequence[float]) -> list[int]:
    """Return integers in the exact proportions of score times reputation; every denominator is a power of two."""
    products = [Fraction(score) * Fraction(reputation) for score, reputation in zip(scores, reputations, strict=True)]
    scale = max((product.denominator for product in products), default=1)
    return [product.numerator * (scale // product.denominator) for product in products]


def _check_payment(pool_nano: int, scores_N: FloatArray, reputations_N: FloatArray) -> None:
    if pool_nano < 0:
        raise ConfigError(f"pool_nano is {pool_nano}, expected at least 0")
    if scores_N.shape != reputations_N.shape or scores_N.ndim != 1:
        raise ConfigError(
            f"scores and reputations have shapes {scores_N.shape} and {reputations_N.shape}, expected (N,)"
        )
    for node, (score, reputation) in enumerate(zip(scores_N.tolist(), reputations_N.tolist(), strict=True)):
        if not isfinite(score) or score < 0:
            raise AggregationError(f"score of node {node} is {score}, expected a finite number of at least 0")
        in_range(f"reputation of node {node}", reputation, low=0, high=1)
