"""Shapley values of a control by random orders of its players: many, because they cost no model evaluation.

    v(C) = sum_C w_i a_i / W_C + 1/2 sum_{i,j in C} w_i w_j Q_ij / W_C^2

One order costs O(N) for the gains and O(N^2) for the curvature, by keeping the weighted sums of the rows seen so far.
Every order is used with its reverse.

Sources: J. Castro et al., "Polynomial calculation of the Shapley value based on sampling", Computers & Operations
Research 36 (2009), algorithm 1; antithetic orders as in R. Mitchell et al., "Sampling permutations for Shapley value
estimation", JMLR 23 (2022), section 3.

Shapes: N players, R orders.
"""

import numba
import numpy as np

from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray


def mean_over_orders(
    gains_N: FloatArray, curvature_NN: FloatArray, weights_N: FloatArray, *, permutations: int, seed: int
) -> FloatArray:
    """Return the mean marginal contribution of each player over random orders.

    Args:
        gains_N: float64 [N].
        curvature_NN: float64 [N, N], symmetric; [0, 0] for none.
        weights_N: float64 [N], positive.
        permutations: Orders, half of them the reverses of the others; at least 2.
        seed: Seed of the orders.

    Returns:
        float64 [N], with sum v(N) up to rounding.
    """
    draw = stream(seed, "shapley", "orders", len(gains_N))
    total_N = np.zeros(len(gains_N))
    for _ in range(max(permutations // 2, 1)):
        order_N = draw.permutation(len(gains_N))
        _add_marginals(order_N, gains_N, curvature_NN, weights_N, total_N)
        _add_marginals(order_N[::-1].copy(), gains_N, curvature_NN, weights_N, total_N)
    return total_N / (2 * max(permutations // 2, 1))


@numba.njit(cache=True)
def _add_marginals(
    order_N: IntArray, gains_N: FloatArray, curvature_NN: FloatArray, weights_N: FloatArray, total_N: FloatArray
) -> None:
    """Add to `total_N` what each player adds on its arrival."""
    seen_N = np.zeros(len(curvature_NN))  # sum over the players before of w_j Q_ij
    weight = linear = square = before = 0.0
    for player in order_N:
        share = weights_N[player]
        weight += share
        linear += share * gains_N[player]
        value = linear / weight
        if len(curvature_NN):
            square += 2 * share * seen_N[player] + share * share * curvature_NN[player, player]
            value += 0.5 * square / (weight * weight)
            row_N = curvature_NN[player]
            for other in range(len(row_N)):
                seen_N[other] += share * row_N[other]
        total_N[player] += value - before
        before = value
