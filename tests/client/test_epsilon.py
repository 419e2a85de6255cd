"""Epsilon by an accountant written apart from the one in use: the privacy loss on a grid, composed by FFT.

For one step of the subsampled Gaussian mechanism, P = (1 - q) N(0, sigma^2) + q N(1, sigma^2) and Q = N(0, sigma^2), in
the direction "removed" (the loss of P against Q) or "added" (of Q against P). The loss L = log(dP / dQ) is monotone in
the outcome, so its distribution function is exact. Each cell's mass goes to the cell's upper end, what lies above the
grid counts as infinite, and what lies below it goes to its lowest point: a dominating distribution, so delta is bounded
from above. Rounding down bounds it from below. n steps convolve n copies; delta(epsilon) = E[(1 - e^(epsilon - L))+].
What wraps around the grid's ends has less than 1e-8 of the mass here.

Sources: Koskela, Jalko and Honkela, "Computing tight differential privacy guarantees using FFT", 2020; Meiser and
Mohammadi, "Tight on budget? Tight bounds for r-fold approximate differential privacy", 2018 (privacy buckets).
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.types import FloatArray

SIGMA = 0.5
DELTA = 1e-5
STEP = 1e-4
HALF = 1 << 18
"""The grid holds losses up to 26 in magnitude."""

Survival = Callable[[FloatArray], FloatArray]


def outcome_of(loss_K: FloatArray, rate: float) -> FloatArray:
    """Return the outcome x at which log(dP / dQ) is the loss; -infinity below the least one, log(1 - q)."""
    inside_K = np.expm1(loss_K) / rate + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(inside_K > 0, 0.5 + SIGMA**2 * np.log(np.maximum(inside_K, 0)), -np.inf))


def removed(rate: float) -> Survival:
    """Return loss -> P(L > loss), of P against Q under P."""

    def survival(loss_K: FloatArray) -> FloatArray:
        x_K = outcome_of(loss_K, rate)
        return np.asarray((1 - rate) * norm.sf(x_K, 0, SIGMA) + rate * norm.sf(x_K, 1, SIGMA))

    return survival


def added(rate: float) -> Survival:
    """Return loss -> P(L > loss), of Q against P under Q: the other loss is below its negative."""
    return lambda loss_K: np.asarray(norm.cdf(outcome_of(-loss_K, rate), 0, SIGMA))


def epsilon_by_fft(survival: Survival, num_steps: int, *, pessimistic: bool) -> float:
    """Return a bound on epsilon after some steps in one direction."""
    grid_K = STEP * np.arange(-HALF, HALF, dtype=np.float64)
    above_K = np.asarray(survival(grid_K))
    # A cell is (grid[k - 1], grid[k]]; its mass goes up to its upper end, or down to its lower one.
    mass_K = np.concatenate([[1 - above_K[0]], above_K[:-1] - above_K[1:]])
    infinite = above_K[-1] if pessimistic else 0.0
    if not pessimistic:
        mass_K = np.concatenate([mass_K[1:], [above_K[-1]]])
    mass_K = np.maximum(mass_K, 0)
    spectrum = np.fft.rfft(np.fft.ifftshift(mass_K))
    composed_K = np.maximum(np.fft.fftshift(np.fft.irfft(spectrum**num_steps, n=2 * HALF)), 0)
    lost = 1 - (1 - infinite) ** num_steps

    def excess(epsilon: float) -> float:
        over_K = grid_K > epsilon
        return float(composed_K[over_K] @ -np.expm1(epsilon - grid_K[over_K])) + lost - DELTA

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, STEP * HALF - 1, xtol=1e-6))


def bounds(rate: float, num_steps: int) -> tuple[float, float]:
    """Return bounds on epsilon from below and from above, over both directions."""
    low, high = (
        max(epsilon_by_fft(way(rate), num_steps, pessimistic=pessimistic) for way in (removed, added))
        for pessimistic in (False, True)
    )
    return low, high


@pytest.mark.parametrize(
    ("rate", "num_steps"),
    [(1 / 64, 1), (1 / 64, 10), (1 / 64, 20), (1 / 320, 20), (0.01, 200), (0.001, 200), (0.1, 20)],
)
def test_epsilon_agrees_with_an_accountant_of_our_own(rate: float, num_steps: int) -> None:
    """Ours is an upper bound: never below the lower one, and within its own error of 0.01 of the upper one."""
    low, high = bounds(rate, num_steps)

    found = epsilon_of(Mechanism(sigma=SIGMA, sampling_rate=rate), num_steps, delta=DELTA)

    assert high - low < 2 * STEP * num_steps
    assert low <= found + 1e-6
    assert found <= high + 0.011


def test_without_sampling_it_is_the_gaussian_mechanism() -> None:
    """Delta of one Gaussian step in closed form (Balle and Wang, 2018, theorem 8)."""
    low, high = bounds(1 - 1e-12, 1)

    def excess(epsilon: float) -> float:
        wide = epsilon * SIGMA
        return float(norm.cdf(0.5 / SIGMA - wide) - np.exp(epsilon) * norm.cdf(-0.5 / SIGMA - wide)) - DELTA

    exact = brentq(excess, 1.0, 30.0)
    assert low <= exact <= high
    assert high - low < 0.003


def test_it_sees_a_step_that_was_not_counted_and_a_rate_that_was_halved() -> None:
    low, _ = bounds(1 / 64, 20)

    for rate, num_steps in ((1 / 64, 18), (1 / 128, 20)):
        assert epsilon_of(Mechanism(sigma=SIGMA, sampling_rate=rate), num_steps, delta=DELTA) < low
