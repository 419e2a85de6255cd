"""A Gaussian process on coalitions: what is believed of a game before it is asked, and of its Shapley values after.

Write a coalition as signs s in {-1, +1}^N. Every game is a sum of parities, v(s) = sum_S c_S prod_{i in S} s_i, and
only odd |S| reach the Shapley value, to which such a parity gives 2 / |S| for each of its members. The prior says that
the coefficients are independent with variance lambda_|S|, falling with the order of interaction:

    k(s, s') = sum_{|S| odd} lambda_|S| prod_{i in S} s_i s'_i,        lambda_m ~ rho^m,   lambda_1 raised by `linear`

which depends on the number d of players in which s and s' differ: for all orders sum_S rho^|S| prod = (1 + rho)^(N-d)
(1 - rho)^d. To it are added the games 1_i / |C| and 1_i / |C|^2, in which the mean of a coalition's members is linear,
at the strength `sizes`. Games of known value, the controls, are fixed effects.

Given values at P pairs, the posterior mean and variance of every Shapley value follow in closed form. `loo_P` are the
leave-one-out errors, by which the prior is chosen; they also give the scale of the variance.

Sources: C. Rasmussen and C. Williams, "Gaussian processes for machine learning", MIT Press 2006, equations 2.25, 2.42
and 5.12; the parity basis as in R. O'Donnell, "Analysis of Boolean functions", CUP 2014, theorem 1.1.

Shapes: P pairs, N players, J controls, K games on the same coalitions.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.special import gammaln

from nerv_fl.shapley.control_variates import inverse_size_values
from nerv_fl.types import BoolArray, FloatArray, IntArray

POWERS: Final = (1, 2)
"""Powers of 1 / |C| in the prior."""

_EXACT: Final = 1e-9
"""The nugget of what is known: rounding."""


class Prior(NamedTuple):
    """What is believed of a game.

    Attributes:
        order: rho N, above 0: the larger, the more the interactions of many players matter.
        linear: Variance of the additive part beside the rest's 1.
        sizes: Variance of the 1_i / |C| families beside it, at |C| = N / 2.
        nugget: Variance of what no smooth game explains, relative to 1.
    """

    order: float = 1.0
    linear: float = 10.0
    sizes: float = 0.0
    nugget: float = 1e-8


@dataclass(frozen=True, eq=False)
class Design:
    """The pairs and what every prior needs of them; the grand coalition against the empty one comes first.

    Attributes:
        distance_PP: Number of players in which two coalitions differ.
        members_PN: The coalitions.
        inverse_QPN: odd parts of 1_i / |C|^q for each power q.
        controls_PJ: Odd parts of the controls.
        control_values_JN: Their Shapley values.
    """

    distance_PP: IntArray
    members_PN: BoolArray
    inverse_QPN: FloatArray
    controls_PJ: FloatArray
    control_values_JN: FloatArray

    @classmethod
    def of(cls, members_PN: BoolArray, *, controls_PJ: FloatArray, control_values_JN: FloatArray) -> Self:
        """Return the design of P coalitions, complements being meant."""
        signs_PN = np.where(members_PN, 1.0, -1.0)
        num_players = members_PN.shape[1]
        return cls(
            distance_PP=np.rint((num_players - signs_PN @ signs_PN.T) / 2).astype(np.int64),
            members_PN=members_PN,
            inverse_QPN=np.stack([_odd_inverse_sizes(members_PN, power=power) for power in POWERS]),
            controls_PJ=controls_PJ,
            control_values_JN=control_values_JN,
        )

    def first(self, num_pairs: int) -> Self:
        """Return the design of the first pairs."""
        return type(self)(
            distance_PP=self.distance_PP[:num_pairs, :num_pairs],
            members_PN=self.members_PN[:num_pairs],
            inverse_QPN=self.inverse_QPN[:, :num_pairs],
            controls_PJ=self.controls_PJ[:num_pairs],
            control_values_JN=self.control_values_JN,
        )


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of K games after their values at the pairs.

    Attributes:
        values_NK: Posterior mean of each Shapley value.
        variance_N: Its posterior variance in units of the games' scale.
        loo_PK: Each pair's value minus what the others predict of it.
        loo_scale_P: The variance of that error in the same units.
        weight_PK: What each pair's value weighs in a prediction, by covariance.
        effect_JK: Coefficients of the controls.
    """

    values_NK: FloatArray
    variance_N: FloatArray
    loo_PK: FloatArray
    loo_scale_P: FloatArray
    weight_PK: FloatArray
    effect_JK: FloatArray


def condition(design: Design, odd_PK: FloatArray, prior: Prior) -> Posterior:
    """Return the posterior of games with odd parts [v(C) - v(N - C)] / 2 at the design's pairs.

    Args:
        design: The pairs.
        odd_PK: float64 [P, K].
        prior: What is believed.
    """
    kernel_PP, value_PN, variance_N = _prior_moments(design, prior)
    lower_PP = cholesky(kernel_PP, lower=True)
    inverse_PP = cho_solve((lower_PP, True), np.eye(len(kernel_PP)))
    effects_PJ = design.controls_PJ
    seen_JP = effects_PJ.T @ inverse_PP
    information_JJ = seen_JP @ effects_PJ
    information_JJ = information_JJ + 1e-10 * np.diag(np.diag(information_JJ) + np.finfo(np.float64).tiny)
    gain_JP = np.linalg.solve(information_JJ, seen_JP)
    inverse_PP = inverse_PP - seen_JP.T @ gain_JP
    left_JN = design.control_values_JN - seen_JP @ value_PN
    explained_N = np.einsum("pn,pn->n", value_PN, cho_solve((lower_PP, True), value_PN))
    unsure_N = np.einsum("jn,jn->n", left_JN, np.linalg.solve(information_JJ, left_JN))
    weight_PK, effect_JK = inverse_PP @ odd_PK, gain_JP @ odd_PK
    diagonal_P = np.maximum(np.diag(inverse_PP), np.finfo(np.float64).tiny)
    return Posterior(
        values_NK=value_PN.T @ weight_PK + design.control_values_JN.T @ effect_JK,
        variance_N=np.maximum(variance_N - explained_N + unsure_N, 0.0),
        loo_PK=weight_PK / diagonal_P[:, None],
        loo_scale_P=1 / diagonal_P,
        weight_PK=weight_PK,
        effect_JK=effect_JK,
    )


def predict(design: Design, posterior: Posterior, prior: Prior) -> FloatArray:
    """Return the posterior mean of the odd parts at the pairs of `design` after those it was conditioned on.

    Args:
        design: The pairs that were seen, and then those to predict.
        posterior: What is known after the first of them.
        prior: The prior it was conditioned with.

    Returns:
        float64 [P - seen, K].
    """
    num_seen = len(posterior.weight_PK)
    kernel_PP, _, _ = _prior_moments(design, prior)
    unexplained = kernel_PP[num_seen:, :num_seen] @ posterior.weight_PK
    return np.asarray(unexplained + design.controls_PJ[num_seen:] @ posterior.effect_JK)


def _prior_moments(design: Design, prior: Prior) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return cov(v, v) [P, P], cov(v, phi) [P, N] and var(phi) [N]."""
    num_pairs, num_players = design.members_PN.shape
    by_distance = _by_distance(num_players, prior)
    # The first pair is v(N) - v(empty), which the values must sum to: nothing about it is left unexplained.
    nugget_P = np.where(np.arange(num_pairs) == 0, _EXACT, prior.nugget)
    kernel_PP = by_distance[design.distance_PP] + np.diag(nugget_P)
    member, stranger = _values_by_size(by_distance)
    sizes_P = design.members_PN.sum(axis=1)
    value_PN = np.where(design.members_PN, member[sizes_P][:, None], stranger[sizes_P][:, None])
    variance_N = np.full(num_players, _value_variance(num_players, prior))
    for power, inverse_PN in zip(POWERS, design.inverse_QPN, strict=True):
        scale = prior.sizes * num_players * (num_players / 2) ** (2 * power - 2)
        kernel_PP = kernel_PP + scale * (inverse_PN @ inverse_PN.T)
        value_PN = value_PN + scale * inverse_size_values(inverse_PN, power=power)
        variance_N = variance_N + scale * np.square(inverse_size_values(np.eye(num_players), power=power)).sum(axis=0)
    return kernel_PP, value_PN, variance_N


def _decay(num_players: int, prior: Prior) -> float:
    return min(prior.order / num_players, 0.8)


def _by_distance(num_players: int, prior: Prior) -> FloatArray:
    """Return k(s, s') by the number of players in which they differ, float64 [N + 1]; about 1 + linear at 0."""
    apart = np.arange(num_players + 1, dtype=np.float64)
    rho = _decay(num_players, prior)
    every_order = np.exp(apart * np.log((1 - rho) / (1 + rho)))
    odd = every_order - every_order[::-1]
    return np.asarray(odd / odd[0] + prior.linear * (num_players - 2 * apart) / num_players)


def _value_variance(num_players: int, prior: Prior) -> float:
    """Return sum over odd S with i of lambda_|S| (2 / |S|)^2, in the units of `_by_distance`."""
    rho = _decay(num_players, prior)
    order = np.arange(1, num_players + 1, 2, dtype=np.float64)
    log_choices = gammaln(num_players) - gammaln(order) - gammaln(num_players - order + 1)
    all_odd = -np.expm1(num_players * np.log((1 - rho) / (1 + rho))) / 2
    log_lambda = order * np.log(rho) - num_players * np.log1p(rho) - np.log(all_odd)
    return float((np.exp(log_choices + log_lambda) * 4 / order**2).sum() + 4 * prior.linear / num_players)


def _values_by_size(by_distance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the Shapley value, in the game C -> k(C, C0), of a member of C0 and of a stranger, by |C0|.

    Before player i there are, of c others in all, x of the members and c - x strangers with hypergeometric chances.
    """
    num_players = len(by_distance) - 1
    member, stranger = np.zeros(num_players + 1), np.zeros(num_players + 1)
    for size in range(num_players + 1):
        rest = num_players - size
        if size:
            chance, apart = _arrivals(size - 1, rest, distance=size)
            member[size] = float((chance * (by_distance[apart - 1] - by_distance[apart])).sum())
        if rest:
            chance, apart = _arrivals(size, rest - 1, distance=size)
            stranger[size] = float((chance * (by_distance[apart + 1] - by_distance[apart])).sum())
    return member, stranger


def _arrivals(members: int, strangers: int, *, distance: int) -> tuple[FloatArray, IntArray]:
    """Return the chance that (x members, y strangers) came before a player, and how far that coalition is from C0."""
    x, y = np.arange(members + 1)[:, None], np.arange(strangers + 1)[None, :]
    log_ways = _log_choose(members, x) + _log_choose(strangers, y) - _log_choose(members + strangers, x + y)
    return np.exp(log_ways) / (members + strangers + 1), distance - x + y


def _log_choose(total: int, chosen: IntArray) -> FloatArray:
    return np.asarray(gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1))


def _odd_inverse_sizes(members_PN: BoolArray, *, power: int) -> FloatArray:
    sizes_P1 = members_PN.sum(axis=1, keepdims=True).astype(np.float64)
    others_P1 = members_PN.shape[1] - sizes_P1
    inside_P1 = np.divide(1.0, sizes_P1**power, out=np.zeros_like(sizes_P1), where=sizes_P1 > 0)
    outside_P1 = np.divide(1.0, others_P1**power, out=np.zeros_like(others_P1), where=others_P1 > 0)
    return np.asarray(np.where(members_PN, inside_P1, -outside_P1) / 2)
