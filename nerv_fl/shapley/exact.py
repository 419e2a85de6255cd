"""Exact Shapley values, by evaluating every coalition: our own enumeration, checked by `shap` up to 12 players.

    phi_i = sum over C without i of |C|! (N - |C| - 1)! / N!  [v(C + i) - v(C)]

phi is linear in v, so a game that is a mean over K validation examples has the mean of the examples' Shapley values,
and their spread gives the validation sample's standard error: std_k(phi_ik) / sqrt(K).

Source: L. S. Shapley, "A value for n-person games", Contributions to the Theory of Games II
(1953), its theorem.

Shapes: N players, C = 2^N coalitions, K validation examples. Bit i of a coalition's index says whether i is a member.
"""

from math import comb
from typing import Final

import numpy as np

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.shapley.game import CountedGame, Game, MaskArray
from nerv_fl.shapley.result import ShapleyResult, interval, sample_errors
from nerv_fl.types import FloatArray

MAX_PLAYERS: Final = 16
"""Most players of the exact method: 65,536 evaluations."""

MAX_THROUGH_SHAP: Final = 12
"""Most players for whom `shap` computes them too."""

_AGREEMENT: Final = 1e-12
"""Largest difference between the two computations, relative to the largest value of a coalition."""


def estimate_exact(
    game: Game, num_players: int, *, num_examples: int | None = None, confidence: float = 0.95
) -> ShapleyResult:
    """Return exact Shapley values with the standard error of the validation sample.

    Args:
        game: Masks [M, N] -> float64 [M, K], per-example values whose mean is the game; or -> [M], a game known without
            error, if `num_examples` is None.
        num_players: N, in 1..16; through `shap` up to 12.
        num_examples: K, at least 2, or None.
        confidence: Of the two-sided intervals, in (0, 1).

    Returns:
        The result, after 2^N evaluations. `crosscheck_z` is the largest difference between shap and the enumeration in
        standard errors.

    Raises:
        ConfigError: If there are too many or no players, or the game's answer has the wrong shape.
        AggregationError: If a value is not finite, or the two computations disagree.

    Guarantees:
        A player whose presence never changes a value, bit for bit, has value and standard error exactly 0.
    """
    _check(num_players, num_examples)
    counted = CountedGame(game, num_players, budget=2**num_players, num_examples=num_examples)
    values_CK = counted(all_coalitions(num_players)).reshape(2**num_players, -1)
    per_example_KN = enumerate_values(values_CK, num_players).T
    enumerated_N = per_example_KN.mean(axis=0)
    through_shap_N = enumerated_N
    if num_players <= MAX_THROUGH_SHAP:
        through_shap_N = _through_shap(values_CK.mean(axis=1), num_players)
    _check_agreement(through_shap_N, enumerated_N, scale=float(np.abs(values_CK).max()))

    # shap sums in an order in which a null player's terms cancel only up to rounding.
    values_N = np.where(per_example_KN.any(axis=0), through_shap_N, 0.0)
    errors_N = np.zeros(num_players) if num_examples is None else sample_errors(per_example_KN)
    ci_low_N, ci_high_N = interval(values_N, errors_N, confidence=confidence)
    return ShapleyResult(
        values=values_N,
        standard_errors=errors_N,
        sample_standard_errors=errors_N,
        ci_low=ci_low_N,
        ci_high=ci_high_N,
        num_evaluations=counted.num_evaluations,
        method="exact",
        stop_reason="enumerated",
        efficiency_gap=float((values_CK[-1] - values_CK[0]).mean() - values_N.sum()),
        crosscheck_z=_largest_z(through_shap_N - enumerated_N, errors_N),
    )


def all_coalitions(num_players: int) -> MaskArray:
    """Return every coalition as a mask [2^N, N], from the empty one to the grand one.

    >>> all_coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    indices_C = np.arange(2**num_players)
    return np.asarray((indices_C[:, None] >> np.arange(num_players)) % 2 == 1)


def enumerate_values(values_CK: FloatArray, num_players: int) -> FloatArray:
    """Return the Shapley values of K games given by all their values, by the formula at the top of this file.

    Args:
        values_CK: float64 [2^N, K], rows in the order of `all_coalitions`.
        num_players: N.

    Returns:
        float64 [N, K]; exactly 0 for a player whose presence never changes a value.

    >>> enumerate_values(np.array([[0.0], [1.0], [2.0], [7.0]]), 2).tolist()
    [[3.0], [4.0]]
    """
    indices_C = np.arange(2**num_players)
    sizes_C = all_coalitions(num_players).sum(axis=1)
    by_size = np.array([1 / (num_players * comb(num_players - 1, size)) for size in range(num_players)])
    rows = []
    for player in range(num_players):
        without = indices_C[(indices_C >> player) % 2 == 0]
        rows.append(by_size[sizes_C[without]] @ (values_CK[without | 1 << player] - values_CK[without]))
    return np.stack(rows)


def _through_shap(values_C: FloatArray, num_players: int) -> FloatArray:
    # Importing shap takes seconds and its first call compiles: only exact rounds pay for it.
    import shap  # noqa: PLC0415

    place_values_N = 2.0 ** np.arange(num_players)

    def look_up(masks_MN: FloatArray) -> FloatArray:
        return values_C[(masks_MN @ place_values_N).astype(np.int64)]

    explainer = shap.Explainer(look_up, np.zeros((1, num_players)), algorithm="exact")
    explanation = explainer(np.ones((1, num_players)), max_evals=2**num_players, silent=True)
    return np.asarray(explanation.values[0], dtype=np.float64)


def _check(num_players: int, num_examples: int | None) -> None:
    if not 1 <= num_players <= MAX_PLAYERS:
        raise ConfigError(f"num_players is {num_players}, expected 1..{MAX_PLAYERS} for exact Shapley values")
    if num_examples is not None and num_examples <= 1:
        raise ConfigError(f"num_examples is {num_examples}, expected at least 2 for a standard error")


def _check_agreement(through_shap_N: FloatArray, enumerated_N: FloatArray, *, scale: float) -> None:
    worst = float(np.abs(through_shap_N - enumerated_N).max())
    if worst > _AGREEMENT * scale:
        raise AggregationError(
            f"Shapley values of shap and of the enumeration differ by {worst}, expected at most {_AGREEMENT * scale}"
        )


def _largest_z(differences_N: FloatArray, errors_N: FloatArray) -> float:
    known_N = errors_N > 0
    return float(np.max(np.abs(differences_N[known_N]) / errors_N[known_N], initial=0.0))
