from itertools import combinations
from typing import Final

import numpy as np
import pytest

from nerv_fl.rng import stream
from nerv_fl.shapley.exact import all_coalitions, enumerate_values
from nerv_fl.shapley.gaussian_process import Design, Prior, condition, predict
from nerv_fl.shapley.paired_sampling import draw_pairs
from nerv_fl.types import BoolArray, FloatArray

N: Final = 6
PRIOR: Final = Prior(order=1.8, linear=3.0, sizes=0.0, nugget=1e-7)


def every_pair() -> BoolArray:
    return np.concatenate([np.ones((1, N), dtype=np.bool_), draw_pairs(N, 10**6, seed=0)])


def design_of(members_PN: BoolArray) -> Design:
    return Design.of(members_PN, controls_PJ=np.zeros((len(members_PN), 0)), control_values_JN=np.zeros((0, N)))


def by_parities(prior: Prior) -> tuple[FloatArray, FloatArray]:
    """The prior by its definition: the odd parities at every coalition [2^N, S], and their variances [S]."""
    signs_CN = np.where(all_coalitions(N), 1.0, -1.0)
    subsets = [subset for size in range(1, N + 1, 2) for subset in combinations(range(N), size)]
    rho = prior.order / N
    variance_S = np.array([rho ** len(subset) for subset in subsets])
    variance_S /= variance_S.sum()
    variance_S += np.array([prior.linear / N if len(subset) == 1 else 0.0 for subset in subsets])
    return np.stack([signs_CN[:, list(subset)].prod(axis=1) for subset in subsets], axis=1), variance_S


def test_conditioning_is_bayes_rule_on_the_parities() -> None:
    members_PN = every_pair()[:14]
    parity_CS, variance_S = by_parities(PRIOR)
    rows_P = members_PN @ (1 << np.arange(N))
    parity_PS = parity_CS[rows_P]
    value_SN = enumerate_values(parity_CS, N).T
    noise_P = np.r_[1e-9, np.full(13, PRIOR.nugget)]
    gain_SP = (variance_S[:, None] * parity_PS.T) @ np.linalg.inv(
        parity_PS * variance_S @ parity_PS.T + np.diag(noise_P)
    )
    odd_P = stream(2, "odd").normal(size=14)
    covariance_SS = np.diag(variance_S) - gain_SP @ (parity_PS * variance_S)

    posterior = condition(design_of(members_PN), odd_P[:, None], PRIOR)
    np.testing.assert_allclose(posterior.values_NK[:, 0], value_SN.T @ (gain_SP @ odd_P), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        posterior.variance_N, np.einsum("sn,st,tn->n", value_SN, covariance_SS, value_SN), rtol=1e-4, atol=1e-6
    )


def test_leave_one_out_is_leaving_one_out() -> None:
    members_PN, prior = every_pair()[:12], Prior(sizes=0.5, nugget=1e-3)
    odd_P1 = stream(3, "odd").normal(size=(12, 1))
    posterior = condition(design_of(members_PN), odd_P1, prior)
    for left_out in (3, 11):
        others = [row for row in range(12) if row != left_out]
        fit = condition(design_of(members_PN[others]), odd_P1[others], prior)
        predicted = predict(design_of(members_PN[[*others, left_out]]), fit, prior)
        assert posterior.loo_PK[left_out, 0] == pytest.approx(odd_P1[left_out, 0] - predicted[0, 0], rel=1e-6)


def test_values_are_those_of_the_fit() -> None:
    pairs_PN, prior = every_pair(), Prior(sizes=2.0, nugget=1e-2)
    odd_P1 = stream(4, "odd").normal(size=(10, 1))
    fit = condition(design_of(pairs_PN[:10]), odd_P1, prior)
    again_PN = np.concatenate([pairs_PN[:10], all_coalitions(N)[1:-1], np.ones((1, N), dtype=np.bool_)])
    fitted_C = np.r_[0.0, predict(design_of(again_PN), fit, prior)[:, 0]]
    fitted_C[0] = -fitted_C[-1]
    np.testing.assert_allclose(
        enumerate_values(fitted_C[:, None], N)[:, 0], fit.values_NK[:, 0], atol=1e-9 * np.abs(odd_P1).max()
    )


def test_controls_are_fixed_effects() -> None:
    pairs_PN = every_pair()[:8]
    control_P = stream(5, "control").normal(size=8)
    known_N = np.arange(1.0, N + 1)
    design = Design.of(pairs_PN, controls_PJ=control_P[:, None], control_values_JN=known_N[None])
    posterior = condition(design, 3 * control_P[:, None], Prior())
    np.testing.assert_allclose(posterior.values_NK[:, 0], 3 * known_N, rtol=1e-6)
    np.testing.assert_allclose(posterior.effect_JK, [[3.0]], rtol=1e-6)
