"""The game of a round: what each coalition of its nodes would have made of the encoder.

    fixed   x_C = theta + s P (c (beta1 m + (1 - beta1) sum_{i in C} w_i u_i / W_all) + g)
    mean    the same with W_C = sum_{i in C} w_i in place of W_all
    v(C) = U(x_C) - U(x_empty),   U = - mean data loss on the search pool

The step s, Adam's moments m and preconditioner P are held as the whole cohort left them, so x_N is the candidate and
x_empty what momentum and g reach alone, which is reported and paid to nobody. In `fixed` absent nodes are zero updates,
so a free rider is worth exactly 0 and splitting an identity gains nothing to second order; `mean` asks what the others
would have reached by themselves, is noisier, and pays splitters. Each x_C has its origin moved to mean V = 0, as the
candidate has; no residual and no transfer's delta changes by that.

Shapes: M coalitions, N players, K search samples, P parameters.
"""

from typing import Final

import numpy as np

from nerv_fl.arrays import FloatArray
from nerv_fl.config import RunConfig
from nerv_fl.strategy.aggregate import LINEAR_RULES, Direction, Vector, aggregate
from nerv_fl.strategy.gate import SEARCH, Candidate, Evaluator, one_step_per_chain
from nerv_fl.strategy.shapley import Control, LinearControl, MaskArray, MeanControl, QuadraticControl

COALITIONS_AT_ONCE: Final = 32
"""Candidates that stand in memory together."""


class RoundGame:
    """The utilities of a round's coalitions on the first samples of the search pool.

    Args:
        direction: The server's direction.
        contributions_NP: Each player's share of the aggregate, w_i u_i / W_all.
        shares_N: Each player's share of the weight, w_i / W_all.
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
        shares_N: FloatArray,
        noise_P: Vector,
        candidate: Candidate,
        evaluator: Evaluator,
        config: RunConfig,
        num_examples: int,
    ) -> None:
        self._direction = direction
        self._contributions_NP = contributions_NP
        self._shares_N = shares_N
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

    def controls(self, playing_N: MaskArray) -> list[Control]:
        """Return games of known value that resemble this one: of first order, and with `curvature` of second.

        Gains are those at the midpoint (`fixed`) or at x_empty (`mean`, whose coalitions all lie about as far from it).
        Curvatures are secants: <grad(x_empty + d_j) - grad(x_empty), d_i>, one gradient a player, made symmetric.

        Args:
            playing_N: The players whose game it is, bool [N].
        """
        settings, shares_N = self._config.valuation, self._shares_N[playing_N]
        moves_NP = self._direction.displacement(self._contributions_NP[playing_N], step=self._candidate.step)
        if settings.game == "mean":
            moves_NP = (moves_NP / shares_N[:, None]).astype(np.float32)
            gains_N = self._slopes(self.empty_P, moves_NP)
            first: list[Control] = [MeanControl(gains_N, shares_N)]
            if settings.curvature:
                first.append(MeanControl(gains_N, shares_N, self._curvature(moves_NP, gains_N)))
            return first
        if not settings.curvature:
            return [LinearControl(self.first_order().mean(axis=0)[playing_N])]
        gains_N = self._slopes(self.empty_P, moves_NP)
        return [QuadraticControl(gains_N, self._curvature(moves_NP, gains_N)), LinearControl(gains_N)]

    def playing(self) -> MaskArray:
        """Return who can change a value at all, bool [N]: in `fixed`, under a linear rule, whoever sent an update."""
        everyone_N = np.ones(self.num_players, dtype=np.bool_)
        settled = self._config.valuation.game == "fixed" and self._config.server.aggregation in LINEAR_RULES
        return np.asarray(self._contributions_NP.any(axis=1)) if settled else everyone_N

    def _slopes(self, theta_P: Vector, moves_NP: Vector) -> FloatArray:
        products_KN = self._evaluator.gradient_products(theta_P, SEARCH, self._ids, directions_NP=moves_NP)
        return np.asarray(products_KN.mean(axis=0))

    def _curvature(self, moves_NP: Vector, gains_N: FloatArray) -> FloatArray:
        secants_NN = np.stack([self._slopes(self.empty_P + move_P, moves_NP) - gains_N for move_P in moves_NP])
        return np.asarray((secants_NN + secants_NN.T) / 2)

    def _weights(self, mask_N: MaskArray) -> Vector:
        present_NP = np.asarray(self._contributions_NP * mask_N[:, None], dtype=np.float32)
        aggregate_P = aggregate(present_NP, config=self._config.server)
        if self._config.valuation.game == "mean" and mask_N.any() and not mask_N.all():
            aggregate_P = (aggregate_P / self._shares_N[mask_N].sum()).astype(np.float32)
        aggregate_P = aggregate_P + self._noise_P
        return self._evaluator.centred(self._direction.candidate(aggregate_P, step=self._candidate.step))
