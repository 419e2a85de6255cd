from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.shapley import FloatArray, MaskArray, ShapleyResult, estimate_surrogate
from nerv_fl.shapley.exact import all_coalitions, enumerate_values
from nerv_fl.shapley.surrogate import draw_coalitions


@dataclass(frozen=True)
class Examples:
    """U_k(x) = <g_k, x> + 1/2 x' H_k x + c_k |x|_4^4 / 4 on displacements d_i: K examples, N players, D dimensions.

    Shapes: gradients [K, D], hessians [K, D, D], quartic [K], displacements [N, D].
    """

    gradients: FloatArray
    hessians: FloatArray
    quartic: FloatArray
    displacements: FloatArray

    def utility(self, x_MD: FloatArray) -> FloatArray:
        linear_MK = x_MD @ self.gradients.T
        quadratic_MK = np.einsum("md,kde,me->mk", x_MD, self.hessians, x_MD) / 2
        return np.asarray(linear_MK + quadratic_MK + np.outer((x_MD**4).sum(axis=1), self.quartic) / 4)

    def game(self, masks_MN: MaskArray) -> FloatArray:
        return self.utility(masks_MN @ self.displacements)

    def midpoint(self) -> FloatArray:
        x_D = self.displacements.sum(axis=0) / 2
        quartic_KD = np.outer(self.quartic, x_D**3)
        gradients_KD = self.gradients + self.hessians @ x_D + quartic_KD
        return np.asarray(gradients_KD @ self.displacements.T)

    def total(self) -> float:
        return float(self.game(np.ones((1, len(self.displacements)), dtype=np.bool_)).mean())

    def first(self, count: int) -> "Examples":
        return Examples(self.gradients[:count], self.hessians[:count], self.quartic[:count], self.displacements)

    def estimate(self, *, budget: int = 64, audit_examples: int = 32, seed: int = 0) -> ShapleyResult:
        audited = self.first(audit_examples)
        return estimate_surrogate(
            self.midpoint(),
            lambda masks: audited.game(masks).mean(axis=1),
            audit_examples=audit_examples,
            total=self.total(),
            budget=budget,
            seed=seed,
        )


def population(seed: int, *, num_players: int = 10, num_examples: int = 64, quartic: float = 0.0) -> Examples:
    """Draw examples around a population whose displacements, mean gradient and mean Hessian depend on the seed only."""
    rng = np.random.default_rng(seed)
    dimensions = 6
    displacements_ND = rng.normal(size=(num_players, dimensions)) / num_players
    gradient_D, root_DD = rng.normal(size=dimensions), rng.normal(size=(dimensions, dimensions))
    return Examples(
        gradient_D + rng.normal(size=(num_examples, dimensions)),
        np.array(-root_DD @ root_DD.T + rng.normal(size=(num_examples, 1, 1)) * np.eye(dimensions)),
        quartic + quartic * rng.normal(size=num_examples),
        displacements_ND,
    )


def exact_values(examples: Examples) -> FloatArray:
    num_players = len(examples.displacements)
    return np.asarray(enumerate_values(examples.game(all_coalitions(num_players)), num_players).mean(axis=1))


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_midpoint_is_exact_for_a_quadratic_game(seed: int) -> None:
    examples = population(seed)
    result = examples.estimate()
    np.testing.assert_allclose(result.values, exact_values(examples), atol=1e-13)
    sample_errors_N = examples.midpoint().std(axis=0, ddof=1) / 8
    np.testing.assert_allclose(result.standard_errors, sample_errors_N, rtol=1e-12)
    assert abs(result.efficiency_gap) < 1e-14
    assert abs(result.crosscheck_z) < 1


@given(st.integers(0, 2**32), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_the_audit_finds_the_rms_error_of_a_quadratic_residual(seed: int, num_players: int) -> None:
    """With every pair, 2 rms(a) / sqrt(N) is the root mean square of the errors that are left after the shift."""
    rng = np.random.default_rng(seed)
    linear_N, pairs_NN = rng.normal(size=num_players), np.triu(rng.normal(size=(num_players, num_players)), 1)

    def residual(masks_MN: MaskArray) -> FloatArray:
        return np.asarray(7.0 + masks_MN @ linear_N + np.einsum("mi,ij,mj->m", masks_MN, pairs_NN, masks_MN))

    truth_N = enumerate_values(residual(all_coalitions(num_players))[:, None], num_players)[:, 0]
    guess_KN = np.ones((2, num_players)) * rng.normal(size=num_players)
    result = estimate_surrogate(
        guess_KN, residual, audit_examples=2, total=float(truth_N.sum()), budget=2**num_players + 2
    )
    rms_error = np.sqrt(np.mean((result.values - truth_N) ** 2))
    np.testing.assert_allclose(result.standard_errors, rms_error, rtol=1e-9)
    errors_N = truth_N - guess_KN[0]
    t_statistic = errors_N.mean() / (errors_N.std(ddof=1) / np.sqrt(num_players))
    assert result.crosscheck_z == pytest.approx(t_statistic, rel=1e-6)
    assert result.efficiency_gap == pytest.approx(errors_N.sum(), abs=1e-9)
    assert (result.stop_reason, result.num_evaluations) == ("enumerated", 2**num_players)


def test_a_sampled_audit_is_close_to_a_complete_one() -> None:
    ratios = []
    for seed in range(30):
        examples = population(seed, num_players=10, quartic=30.0)
        sampled, complete = examples.estimate(budget=128, seed=seed), examples.estimate(budget=1026)
        sample_errors_N = examples.midpoint().std(axis=0, ddof=1) / 8
        audits = [np.sqrt(np.mean(one.standard_errors**2 - sample_errors_N**2)) for one in (sampled, complete)]
        ratios.append(audits[0] / audits[1])
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)
    assert np.std(ratios) < 0.2


def test_values_sum_to_the_total_and_null_players_keep_zero() -> None:
    examples = population(5, num_players=20, quartic=50.0)
    displacements_ND = examples.displacements * (np.arange(20) % 5 != 3)[:, None]
    idle = Examples(examples.gradients, examples.hessians, examples.quartic, displacements_ND)
    result = idle.estimate()
    assert result.values.sum() == pytest.approx(idle.total(), rel=1e-12)
    assert abs(idle.midpoint().mean(axis=0).sum() - idle.total()) > 1e-3
    for array in (result.values, result.standard_errors, result.ci_low, result.ci_high):
        assert array.dtype == np.float64
        assert np.flatnonzero(array == 0).tolist() == [3, 8, 13, 18]


@pytest.mark.parametrize("rounding", [0.0, 1e-17])
def test_nobody_moved(rounding: float) -> None:
    """A batched model may differ in the last bit between the empty and the grand coalition: still nobody earns."""

    def nothing(masks_MN: MaskArray) -> FloatArray:
        return np.arange(len(masks_MN), dtype=np.float64) * rounding

    result = estimate_surrogate(np.zeros((4, 3)), nothing, audit_examples=2, total=rounding, budget=8)
    for array in (result.values, result.standard_errors, result.ci_low, result.ci_high):
        assert array.tolist() == [0.0, 0.0, 0.0]
    assert result.crosscheck_z == 0.0


def test_one_player_gets_the_total() -> None:
    examples = population(1, num_players=1, quartic=5.0)
    result = examples.estimate()
    assert result.values.tolist() == [pytest.approx(examples.total())]
    assert (result.num_evaluations, result.crosscheck_z) == (2, 0.0)


@pytest.mark.parametrize("budget", [4, 5, 64, 129])
def test_the_budget_is_spent_in_one_call_and_never_exceeded(budget: int) -> None:
    asked: list[MaskArray] = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.append(masks_MN)
        return np.asarray(masks_MN.sum(axis=1), dtype=np.float64)

    result = estimate_surrogate(np.ones((8, 50)), game, audit_examples=8, total=50.0, budget=budget)
    (masks_MN,) = asked
    assert len(masks_MN) == result.num_evaluations == budget - budget % 2
    assert result.stop_reason == "budget"
    assert [int(mask.sum()) for mask in masks_MN[:2]] == [0, 50]
    half = len(masks_MN[2:]) // 2
    np.testing.assert_array_equal(masks_MN[2 : 2 + half], ~masks_MN[2 + half :])


def test_coalitions_depend_on_seed_and_path_only() -> None:
    first = draw_coalitions(30, 40, seed=7, path=(1,))
    np.testing.assert_array_equal(first, draw_coalitions(30, 40, seed=7, path=(1,)))
    assert (first != draw_coalitions(30, 40, seed=7, path=(2,))).any()
    assert (first != draw_coalitions(30, 40, seed=8, path=(1,))).any()
    assert first.mean() == pytest.approx(0.5, abs=0.06)


def test_the_audit_compares_on_its_own_examples() -> None:
    """Later examples that the audit never sees must not look like errors of the surrogate."""
    per_example_KN = np.concatenate([np.ones((4, 15)), np.full((4, 15), 9.0)]) * np.arange(1.0, 16)

    def game(masks_MN: MaskArray) -> FloatArray:
        return np.asarray(masks_MN @ np.arange(1.0, 16))

    result = estimate_surrogate(per_example_KN, game, audit_examples=4, total=5.0 * 120, budget=40)
    assert result.efficiency_gap == 0.0
    np.testing.assert_allclose(result.standard_errors, per_example_KN.std(axis=0, ddof=1) / np.sqrt(8), rtol=1e-12)


@pytest.mark.parametrize(("quartic", "unaudited"), [(0.0, (0.93, 1.0)), (10.0, (0.6, 0.8))])
def test_intervals_cover_the_population(quartic: float, unaudited: tuple[float, float]) -> None:
    """95 % intervals hold the truth in 93-100 % of the cases, also where the sample's error alone would not do."""
    covered, covered_by_sample = [], []
    for seed in range(100):
        everyone = population(seed, num_players=8, num_examples=3000, quartic=quartic)
        sample = everyone.first(64)
        truth_N = exact_values(everyone)
        result = sample.estimate(seed=seed)
        covered.append((result.ci_low <= truth_N) & (truth_N <= result.ci_high))
        sample_errors_N = sample.midpoint().std(axis=0, ddof=1) / 8
        covered_by_sample.append(np.abs(result.values - truth_N) <= 1.96 * sample_errors_N)
    assert 0.93 <= np.mean(covered) <= 1.0
    assert unaudited[0] <= np.mean(covered_by_sample) <= unaudited[1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"audit_examples": 9}, ConfigError, r"^audit_examples is 9, expected 1\.\.8, the examples there are$"),
        ({"audit_examples": 0}, ConfigError, r"^audit_examples is 0, expected 1\.\.8, the examples there are$"),
        ({"budget": 3}, ConfigError, r"^budget is 3 evaluations, expected at least 4$"),
        ({"total": float("nan")}, AggregationError, r"^total value is nan, expected a finite number$"),
        ({"confidence": 1.0}, ConfigError, r"^confidence is 1\.0, expected a number in \(0, 0\.999999999999\]$"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, float], error: type[Exception], message: str) -> None:
    arguments = {"audit_examples": 4, "total": 5.0, "budget": 8} | changes
    with pytest.raises(error, match=message):
        estimate_surrogate(np.ones((8, 5)), lambda masks: masks.sum(axis=1), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("per_example_KN", "error", "message"),
    [
        (np.ones((8, 0)), ConfigError, r"^per_example is float64 of shape \(8, 0\), expected float64 of shape"),
        (np.ones((1, 5)), ConfigError, r"^per_example is float64 of shape \(1, 5\), expected float64 of shape"),
        (np.ones(5), ConfigError, r"^per_example is float64 of shape \(5,\), expected float64 of shape"),
        (np.ones((8, 5), np.float32), ConfigError, r"^per_example is float32 of shape \(8, 5\), expected float64"),
        (
            np.where(np.eye(5), np.nan, 1)[1:],
            AggregationError,
            r"^surrogate values of player 1 are not finite, expected finite numbers$",
        ),
    ],
)
def test_bad_surrogates_are_refused(per_example_KN: FloatArray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimate_surrogate(per_example_KN, lambda masks: np.zeros(len(masks)), audit_examples=1, total=0.0, budget=8)


def test_a_nan_in_the_audit_names_its_coalition() -> None:
    with pytest.raises(AggregationError, match=r"^value of coalition \[\] is nan, expected a finite number$"):
        estimate_surrogate(
            np.ones((8, 5)), lambda masks: np.full(len(masks), np.nan), audit_examples=4, total=5.0, budget=8
        )
