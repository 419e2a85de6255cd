"""The game of a round, and its Shapley values.

    x_C  = theta + s P (c (beta1 m + (1 - beta1) sum_{i in C} w_i u_i / W_all) + g)
    v(C) = U(x_C) - U(x_empty),   U = - mean data loss on the search pool

The step s, Adam's moments m and preconditioner P are held as the whole cohort left them, so x_N is the candidate and
x_empty what momentum and g reach alone, which is reported and paid to nobody. Absent nodes are zero updates (the
`fixed` game), so a free rider is worth exactly 0.

Up to `valuation.exact_max_nodes` players every coalition is evaluated, on `valuation.audit_samples`; beyond that each
value is the midpoint surrogate phi_i = <grad U((x_empty + x_N) / 2), s P c (1 - beta1) w_i u_i / W_all>, one
gradient, exact for a game quadratic in the updates, with coalition evaluations auditing it and widening the
intervals. Each x_C has its origin moved to mean V = 0, as the candidate has; no residual and no transfer's delta
changes by that.

Shapes: M coalitions, N players, K search samples, P parameters.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nerv_fl.arrays import FloatArray
from nerv_fl.config import RunConfig
from nerv_fl.strategy.aggregate import LINEAR_RULES, Direction, Vector, aggregate
from nerv_fl.strategy.gate import SEARCH, Candidate, Evaluator, one_step_per_chain
from nerv_fl.strategy.shapley import MaskArray, ShapleyResult, estimate_exact, estimate_surrogate

COALITIONS_AT_ONCE: Final = 32
"""Candidates that stand in memory together."""


@dataclass(frozen=True, kw_only=True)
class Valuation:
    """Values of the players, the cohort's utility and the empty coalition's over no step at all."""

    result: ShapleyResult
    total: float
    empty: float


class RoundGame:
    """The utilities of a round's coalitions on the first samples of the search pool.

    Args:
        direction: The server's direction.
        contributions_NP: Each player's share of the aggregate.
        noise_P: Noise of the aggregate, part of every coalition.
        candidate: The accepted candidate.
        evaluator: The held-out pools.
        config: The run's settings.
        num_examples: K.
    """

    def __init__(
        self,
        direction: Direction,
        contributions_NP: Vector,
        *,
        noise_P: Vector,
        candidate: Candidate,
        evaluator: Evaluator,
        config: RunConfig,
        num_examples: int,
    ) -> None:
        self._direction = direction
        self._contributions_NP = contributions_NP
        self._noise_P = noise_P
        self._candidate = candidate
        self._evaluator = evaluator
        self._config = config
        self._ids = one_step_per_chain(np.arange(num_examples), evaluator.num_steps())
        self.empty_P = self._weights(np.zeros(self.num_players, dtype=np.bool_))
        self.empty_loss_K = evaluator.measure([self.empty_P], SEARCH, self._ids)[0].loss_B

    @property
    def num_players(self) -> int:
        """N."""
        return len(self._contributions_NP)

    @property
    def num_examples(self) -> int:
        """K."""
        return len(self._ids)

    @property
    def total(self) -> float:
        """v(N) on all K samples."""
        return float((self.empty_loss_K - self._candidate.search_loss_B[: self.num_examples]).mean())

    @property
    def empty(self) -> float:
        """Utility of the empty coalition over the encoder that stood: what momentum and g gained alone."""
        return float((self._candidate.base_loss_B[: self.num_examples] - self.empty_loss_K).mean())

    def per_example(self, masks_MN: MaskArray, *, num_examples: int) -> FloatArray:
        """Return the utility of each coalition on each of the first samples, float64 (M, num_examples)."""
        losses: list[FloatArray] = []
        for start in range(0, len(masks_MN), COALITIONS_AT_ONCE):
            thetas = [self._weights(mask_N) for mask_N in masks_MN[start : start + COALITIONS_AT_ONCE]]
            losses += [item.loss_B for item in self._evaluator.measure(thetas, SEARCH, self._ids[:num_examples])]
        return self.empty_loss_K[:num_examples] - np.stack(losses)

    def first_order(self) -> FloatArray:
        """Return the midpoint surrogate's values by sample, float64 (K, N)."""
        midpoint_P = np.asarray((self.empty_P + self._candidate.theta_P) / np.float32(2), dtype=np.float32)
        directions_NP = self._direction.displacement(self._contributions_NP, step=self._candidate.step)
        return self._evaluator.gradient_products(midpoint_P, SEARCH, self._ids, directions_NP=directions_NP)

    def _weights(self, mask_N: MaskArray) -> Vector:
        present_NP = np.asarray(self._contributions_NP * mask_N[:, None], dtype=np.float32)
        aggregate_P = aggregate(present_NP, config=self._config.server) + self._noise_P
        return self._evaluator.centred(self._direction.candidate(aggregate_P, step=self._candidate.step))


def is_exact(num_players: int, *, config: RunConfig) -> bool:
    """Return whether every coalition of so many players is evaluated."""
    settings = config.valuation
    few = num_players <= settings.exact_max_nodes
    return (
        settings.method == "exact"
        or (settings.method == "auto" and few)
        or config.server.aggregation not in LINEAR_RULES
    )


def value_round(game: RoundGame, *, config: RunConfig, round_number: int) -> Valuation:
    """Return the Shapley values of a round's players.

    Args:
        game: The round's game.
        config: Method, budget and confidence.
        round_number: Names the audit's random stream.
    """
    settings = config.valuation
    if is_exact(game.num_players, config=config):
        result = estimate_exact(
            lambda masks_MN: game.per_example(masks_MN, num_examples=game.num_examples),
            game.num_players,
            num_examples=game.num_examples,
            confidence=settings.confidence,
        )
    else:
        result = estimate_surrogate(
            game.first_order(),
            lambda masks_MN: game.per_example(masks_MN, num_examples=settings.audit_samples).mean(axis=1),
            audit_examples=settings.audit_samples,
            total=game.total,
            budget=settings.evaluations,
            confidence=settings.confidence,
            seed=config.seed,
            path=(round_number,),
        )
    return Valuation(result=result, total=game.total, empty=game.empty)
