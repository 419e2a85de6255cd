"""The front door: Shapley values of any game, by the method that fits its size and the budget.

    auto     every coalition                 where the budget holds all of them, up to 16 players
             KernelCV                        from 10 evaluations a player
             the surrogate, audited          below, where there is one: so few evaluations could make it worse
             KernelCV                        below, where there is none

A single player gets v(N) - v(empty). Players with the same effect are welcome and get the same value where every
coalition is seen, and nearly so elsewhere.

Shapes: M coalitions, N players, K validation examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypedDict

import numpy as np

from nerv_fl.errors import ConfigError
from nerv_fl.shapley.control_variates import Control
from nerv_fl.shapley.exact import MAX_PLAYERS, MAX_THROUGH_SHAP, estimate_exact
from nerv_fl.shapley.game import CountedGame, Game
from nerv_fl.shapley.kernel_cv import MIN_BUDGET as LEAST_OF_KERNEL_CV
from nerv_fl.shapley.kernel_cv import estimate_kernel_cv
from nerv_fl.shapley.permutation import estimate_permutation
from nerv_fl.shapley.result import ShapleyResult
from nerv_fl.shapley.split_sample import MIN_BUDGET as LEAST_OF_AUDIT
from nerv_fl.shapley.split_sample import estimate_audit
from nerv_fl.shapley.surrogate import estimate_surrogate
from nerv_fl.types import FloatArray
from nerv_fl.validation import in_range, one_of

METHODS: Final = ("auto", "exact", "kernel_cv", "permutation", "surrogate", "audit")

EVALUATIONS_A_PLAYER: Final = 32
"""The budget, a player, where none is given."""

LEAST_BUDGETS: Final = {"audit": LEAST_OF_AUDIT, "kernel_cv": LEAST_OF_KERNEL_CV}
"""Evaluations below which a method refuses, where a game of few players has fewer coalitions than that."""

KERNEL_CV_FROM: Final = 10
"""Evaluations a player from which KernelCV is better than a good surrogate."""


def estimate(
    game: Game,
    num_players: int,
    *,
    method: str = "auto",
    budget: int | None = None,
    permutations: int = 10_000,
    controls: Sequence[Control] = (),
    tolerance: float = 0.05,
    seed: int = 0,
    surrogate: FloatArray | None = None,
    num_examples: int | None = None,
    truncation: float = 0.0,
    confidence: float = 0.95,
    path: tuple[int | str, ...] = (),
) -> ShapleyResult:
    """Return the Shapley values of a game.

    Args:
        game: Boolean masks [M, N], a coalition a row, -> float64 [M]; or [M, K], whose mean is the game.
        num_players: N, at least 1.
        method: One of `METHODS`.
        budget: Most coalitions to evaluate. None: all of them up to 12 players (or the least that the method accepts,
            if more), else 32 N; "permutation" takes what its orders need, at most 2 + permutations (N - 1).
        permutations: Orders of "permutation", half of them the reverses of the others.
        controls: Games of known Shapley value that resemble this one, for "kernel_cv" and "audit".
        tolerance: KernelCV stops once every interval's half width is below this part of the largest |phi|; 0 never.
        seed: Seed of whatever is drawn.
        surrogate: float64 [N] or [K, N]: values that a model predicts. None: those of the first control.
        num_examples: K, at least 2, or None for a game with values [M].
        truncation: Of "permutation"; 0, as the literal method has it, evaluates every order to its end.
        confidence: Of the two-sided intervals, in (0, 1).
        path: What distinguishes this valuation from others of the seed.

    Returns:
        The result; its `method` is what was used. The game is asked once more about the grand coalition if the budget
        has an evaluation left, so a game that answers differently the second time is found out.

    Raises:
        ConfigError: If an argument is out of range, the budget does not suffice, or the game's answer has a wrong
            shape.
        AggregationError: If a value is not finite, or not the same when asked again.

    Guarantees:
        At most `budget` coalitions are evaluated; |v(N) - v(empty) - sum phi| is rounding.

    >>> glove = lambda masks_MN: np.minimum(masks_MN[:, 0], masks_MN[:, 1:].sum(axis=1)).astype(np.float64)
    >>> estimate(glove, 3).values.round(4).tolist()
    [0.6667, 0.1667, 0.1667]
    """
    one_of("method", method, choices=METHODS)
    in_range("tolerance", tolerance, low=0, high=1)
    if num_players < 1:
        raise ConfigError(f"num_players is {num_players}, expected at least 1")
    if surrogate is None and controls:
        surrogate = controls[0].shapley()
    if budget is None:
        budget = _default_budget(num_players, method=method, permutations=permutations)
    if method == "auto":
        method = _chosen(num_players, budget=budget, has_surrogate=surrogate is not None)
    _check_budget(num_players, budget=budget)
    counted = CountedGame(game, num_players, budget=budget, num_examples=num_examples)
    options = _Options(budget=budget, num_examples=num_examples, confidence=confidence, seed=seed, path=path)
    if method == "exact" or num_players == 1:
        result = estimate_exact(counted, num_players, num_examples=num_examples, confidence=confidence)
    elif method == "kernel_cv":
        result = estimate_kernel_cv(counted, num_players, controls=controls, tolerance=tolerance, **options)
    elif method == "audit":
        result = estimate_audit(counted, num_players, controls=controls, **options)
    elif method == "permutation":
        result = estimate_permutation(counted, num_players, permutations=permutations, truncation=truncation, **options)
    else:
        result = _from_surrogate(counted, num_players, surrogate=surrogate, **options)
    grand_N = np.ones(num_players, dtype=np.bool_)
    if counted.num_evaluations < budget:
        counted.ask_again(grand_N)
    return replace(result, num_evaluations=counted.num_evaluations)


class _Options(TypedDict):
    """What every method but the exact one takes."""

    budget: int
    num_examples: int | None
    confidence: float
    seed: int
    path: tuple[int | str, ...]


def _from_surrogate(
    game: CountedGame,
    num_players: int,
    *,
    surrogate: FloatArray | None,
    budget: int,
    num_examples: int | None,
    confidence: float,
    seed: int,
    path: tuple[int | str, ...],
) -> ShapleyResult:
    """Return the surrogate's values, their errors widened by an audit on the same examples."""
    if surrogate is None:
        raise ConfigError("surrogate is None, expected values float64 [N] or [K, N], or a control")
    if surrogate.shape not in {(num_players,), (num_examples, num_players)}:
        raise ConfigError(
            f"surrogate has shape {surrogate.shape}, expected ({num_players},) or ({num_examples}, {num_players})"
        )
    per_example_KN = np.atleast_2d(surrogate)
    if len(per_example_KN) == 1:
        per_example_KN = per_example_KN.repeat(2, axis=0)
    ends_2N = np.array([[False], [True]]).repeat(num_players, axis=1)
    empty, grand = game(ends_2N).reshape(2, -1).mean(axis=1)
    return estimate_surrogate(
        per_example_KN,
        lambda masks_MN: game(masks_MN).reshape(len(masks_MN), -1).mean(axis=1),
        audit_examples=len(per_example_KN),
        total=float(grand - empty),
        budget=budget,
        confidence=confidence,
        seed=seed,
        path=path,
    )


def _default_budget(num_players: int, *, method: str, permutations: int) -> int:
    """Return a budget that the method accepts, and one evaluation more to repeat the grand coalition."""
    every = max(1 << num_players, LEAST_BUDGETS.get(method, 0)) + 1
    if method == "permutation":
        return min(every, 3 + permutations * max(num_players - 1, 1))
    if method == "exact" or num_players <= MAX_THROUGH_SHAP:
        return every
    return EVALUATIONS_A_PLAYER * num_players + 1


def _chosen(num_players: int, *, budget: int, has_surrogate: bool) -> str:
    """Return the method of "auto"."""
    if num_players <= MAX_PLAYERS and budget >= 2**num_players:
        return "exact"
    few = budget < KERNEL_CV_FROM * num_players
    return "surrogate" if few and has_surrogate else "kernel_cv"


def _check_budget(num_players: int, *, budget: int) -> None:
    least = min(2**num_players, num_players + 2)
    if budget < least:
        raise ConfigError(f"budget is {budget} evaluations, expected at least {least} for {num_players} players")
