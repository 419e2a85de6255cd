"""Permutation sampling: the mean of what each player adds on arrival, over random orders. The protocol's own method.

    phi_i ~ 1/R sum_r [v(before_r(i) + i) - v(before_r(i))]

Orders come with their reverses, so that what is of second order cancels in each pair. With `truncation` an order is
cut off where little is left to gain, |v(N) - v(C)| <= truncation |v(N) - v(empty)|, and the players after get 0:
cheaper, biased, and never done unless asked for. Each order's contributions sum to v(N) - v(empty), so their means do
too.

Sources: J. Castro, D. Gomez and J. Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers
& Operations Research 36 (2009), algorithm 1; R. Mitchell et al., "Sampling permutations for Shapley value estimation",
JMLR 23 (2022), section 3 (antithetic orders); A. Ghorbani and J. Zou, "Data Shapley", ICML 2019, algorithm 1
(truncation).

Shapes: R orders, N players, K validation examples.
"""

import numpy as np

from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream
from nerv_fl.shapley.game import CountedGame, Game, MaskArray
from nerv_fl.shapley.result import ShapleyResult, interval, sample_errors
from nerv_fl.types import FloatArray, IntArray
from nerv_fl.validation import in_range


def estimate_permutation(
    game: Game,
    num_players: int,
    *,
    budget: int,
    permutations: int = 10_000,
    truncation: float = 0.0,
    num_examples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    path: tuple[int | str, ...] = (),
) -> ShapleyResult:
    """Return the mean contributions over random orders and their reverses.

    Args:
        game: Masks [M, N] -> float64 [M], or [M, K] with `num_examples`.
        num_players: N, at least 2.
        budget: Most coalitions to evaluate, at least 2 N, which one pair of orders can need.
        permutations: Most orders, at least 2; an odd one is left out.
        truncation: Part of v(N) - v(empty) that is not worth evaluating, in 0..1; 0 truncates nothing.
        num_examples: K, at least 2, or None.
        confidence: Of the two-sided intervals, in (0, 1).
        seed: Seed of the orders.
        path: What distinguishes this valuation from others of the seed.

    Returns:
        The result. Standard errors are those of the mean over pairs of orders, infinite for a single pair, with the
        validation sample's in quadrature. `crosscheck_z` is the largest difference between the means of the even and
        the odd pairs, in its standard errors.

    Raises:
        ConfigError: If the budget or the number of orders does not suffice for one pair.

    Guarantees:
        Without truncation the estimate is unbiased for a fixed number of orders. A null player gets exactly 0.
    """
    in_range("truncation", truncation, low=0, high=1)
    if permutations <= 1:
        raise ConfigError(f"permutations is {permutations}, expected at least 2: an order and its reverse")
    if budget < 2 * num_players:
        raise ConfigError(f"budget is {budget} evaluations, expected at least {2 * num_players}, one pair of orders")
    counted = CountedGame(game, num_players, budget=budget, num_examples=num_examples)
    walk = _Walk(counted, num_players, truncation=truncation)
    draw = stream(seed, "shapley", "permutation", *path)
    pairs: list[FloatArray] = []
    total_NK = np.zeros(())
    while len(pairs) < permutations // 2:
        order_N = draw.permutation(num_players)
        if not (walk.can_afford(order_N) and walk.can_afford(order_N[::-1])):
            break
        pair_NK = (walk.marginals(order_N) + walk.marginals(order_N[::-1])) / 2
        total_NK = total_NK + pair_NK
        pairs.append(pair_NK.mean(axis=1))
    per_example_NK = total_NK / len(pairs)
    values_N, pairs_RN = per_example_NK.mean(axis=1), np.array(pairs)
    sample_N = sample_errors(per_example_NK.T) if num_examples else np.zeros(num_players)
    errors_N = np.hypot(_error_of_mean(pairs_RN), sample_N)
    gap = walk.total - float(values_N.sum())
    ci_low_N, ci_high_N = interval(values_N, errors_N, confidence=confidence)
    return ShapleyResult(
        values=values_N,
        standard_errors=errors_N,
        sample_standard_errors=sample_N,
        ci_low=ci_low_N,
        ci_high=ci_high_N,
        num_evaluations=counted.num_evaluations,
        method="permutation",
        stop_reason="permutations" if len(pairs) == permutations // 2 else "budget",
        efficiency_gap=gap,
        crosscheck_z=_halves_z(pairs_RN),
    )


class _Walk:
    """Walks along orders of the players and asks for what each adds."""

    def __init__(self, game: CountedGame, num_players: int, *, truncation: float) -> None:
        self._game = game
        self._truncation = truncation
        ends_2N = np.array([[False], [True]]).repeat(num_players, axis=1)
        self._empty_K, self._grand_K = game(ends_2N).reshape(2, -1)

    @property
    def total(self) -> float:
        """v(N) - v(empty)."""
        return float((self._grand_K - self._empty_K).mean())

    def can_afford(self, order_N: IntArray) -> bool:
        """Return whether the budget suffices for an order and its reverse."""
        inside_CN = self._inside(order_N)
        return self._game.can_afford(np.concatenate([inside_CN, self._inside(order_N[::-1])]))

    def marginals(self, order_N: IntArray) -> FloatArray:
        """Return what each player adds on arrival, float64 [N, K]."""
        if self._truncation:
            values_CK = self._truncated(order_N)
        else:
            values_CK = self._game(self._inside(order_N)).reshape(len(order_N) - 1, -1)
        path_CK = np.concatenate([self._empty_K[None], values_CK, self._grand_K[None]])
        added_NK = np.empty((len(order_N), path_CK.shape[1]))
        added_NK[order_N] = np.diff(path_CK, axis=0)
        return added_NK

    def _truncated(self, order_N: IntArray) -> FloatArray:
        """Return the values along an order, v(N) from where the rest is not worth asking for."""
        rows: list[FloatArray] = []
        for mask_N in self._inside(order_N):
            near = bool(rows) and abs(float((self._grand_K - rows[-1]).mean())) <= self._truncation * abs(self.total)
            rows.append(self._grand_K if near else self._game(mask_N[None]).reshape(-1))
        return np.array(rows).reshape(len(order_N) - 1, -1)

    def _inside(self, order_N: IntArray) -> MaskArray:
        """Return the coalitions on the way, without the empty and the grand one, bool [N - 1, N]."""
        arrival_N = np.argsort(order_N)
        return arrival_N[None, :] < np.arange(1, len(order_N))[:, None]


def _error_of_mean(pairs_RN: FloatArray) -> FloatArray:
    if len(pairs_RN) == 1:
        return np.where(pairs_RN[0] == 0, 0.0, np.inf)
    return sample_errors(pairs_RN)


def _halves_z(pairs_RN: FloatArray) -> float:
    if len(pairs_RN) <= 3:  # noqa: PLR2004
        return 0.0
    even_RN, odd_RN = pairs_RN[::2], pairs_RN[1::2]
    errors_N = np.hypot(sample_errors(even_RN), sample_errors(odd_RN))
    known_N = errors_N > 0
    differences_N = np.abs(even_RN.mean(axis=0) - odd_RN.mean(axis=0))
    return float(np.max(differences_N[known_N] / errors_N[known_N], initial=0.0))
