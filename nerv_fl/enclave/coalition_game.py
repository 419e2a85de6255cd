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

from collections.abc import Sequence
from typing import Final

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.enclave.aggregate import LINEAR_RULES, Direction, aggregate_coalitions
from nerv_fl.enclave.gate import SEARCH, Candidate, Evaluator, one_step_per_chain
from nerv_fl.shapley import Control, LinearControl, MaskArray, MeanControl, QuadraticControl
from nerv_fl.types import FloatArray, Vector
from nerv_fl.vectors import Rows

COALITIONS_AT_ONCE: Final = 32
"""Most candidates that stand in memory together."""

NUMBERS_AT_ONCE: Final = 2**28
"""Most numbers of theirs: at 75 million parameters three candidates stand together."""


class RoundGame:
    """The utilities of a round's coalitions on the first samples of the search pool.

    Args:
        direction: The server's direction.
        shares: Each player's share of the aggregate, w_i u_i / W_all.
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
        shares: Rows,
        *,
        shares_N: FloatArray,
        noise_P: Vector,
        candidate: Candidate,
        evaluator: Evaluator,
        config: RunConfig,
        num_examples: int,
    ) -> None:
        self._direction = direction
        self._shares = shares
        self._shares_N = shares_N
        self._noise_P = noise_P
        self._candidate = candidate
        self._evaluator = evaluator
        self._config = config
        self.sample_ids = one_step_per_chain(np.arange(num_examples), evaluator.num_steps())
        self.empty_P = self.candidates(np.zeros((1, self.num_players), dtype=np.bool_))[0]
        self.empty_loss_K = evaluator.measure([self.empty_P], SEARCH, self.sample_ids)[0].loss_B

    @property
    def num_players(self) -> int:
        """N."""
        return len(self._shares)

    @property
    def num_examples(self) -> int:
        """K."""
        return len(self.sample_ids)

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
        at_once = max(1, min(COALITIONS_AT_ONCE, NUMBERS_AT_ONCE // self._shares.num_parameters))
        for start in range(0, len(masks_MN), at_once):
            thetas = self.candidates(masks_MN[start : start + at_once])
            losses += [item.loss_B for item in self._evaluator.measure(thetas, SEARCH, self.sample_ids[:num_examples])]
        return self.empty_loss_K[:num_examples] - np.stack(losses)

    def first_order(self) -> FloatArray:
        """Return the midpoint surrogate's values by sample, float64 (K, N)."""
        return self._evaluator.gradient_products(self._midpoint_P, SEARCH, self.sample_ids, directions=self.moves())

    def moves(self) -> Rows:
        """Return how far each player moves the candidate in the `fixed` game."""
        return self._direction.displacement(self._shares, step=self._candidate.step)

    def controls(self, playing_N: MaskArray) -> list[Control]:
        """Return games of known value that resemble this one: of first order, and with `curvature` of second.

        Gains are those at the midpoint (`fixed`) or at x_empty (`mean`, whose coalitions all lie about as far from it).
        Curvatures are secants: <grad(x_empty + d_j) - grad(x_empty), d_i>, one gradient a player, made symmetric.
        `benchmarks/bench_controls.py` has them beside exact Hessian-vector products.

        Args:
            playing_N: The players whose game it is, bool [N].
        """
        settings, shares_N = self._config.valuation, self._shares_N[playing_N]
        moves = self.moves().select(np.flatnonzero(playing_N).tolist())
        if settings.game == "fixed" and not settings.curvature:
            return [LinearControl(-_products(self._slopes([self._midpoint_P]), moves)[0])]
        if settings.game == "mean":
            moves = moves.map(lambda player, move_P: np.asarray(move_P / shares_N[player], dtype=np.float32))
        slope_1P = self._slopes([self.empty_P])
        gains_N = -_products(slope_1P, moves)[0]
        if not settings.curvature:
            return [MeanControl(gains_N, shares_N)]
        curvature_NN = self._curvature(moves, slope_1P)
        if settings.game == "fixed":
            return [QuadraticControl(gains_N, curvature_NN), LinearControl(gains_N)]
        return [MeanControl(gains_N, shares_N), MeanControl(gains_N, shares_N, curvature_NN)]

    def playing(self) -> MaskArray:
        """Return who can change a value at all, bool [N]: in `fixed`, under a linear rule, whoever sent an update."""
        everyone_N = np.ones(self.num_players, dtype=np.bool_)
        settled = self._config.valuation.game == "fixed" and self._config.server.aggregation in LINEAR_RULES
        return np.array([bool(share_P.any()) for share_P in self._shares]) if settled else everyone_N

    def candidates(self, masks_MN: MaskArray) -> list[Vector]:
        """Return x_C of each coalition, float32 (P,) each."""
        aggregates_MP = aggregate_coalitions(self._shares, masks_MN, config=self._config.server)
        return [self._candidate_of(mask_N, sum_P) for mask_N, sum_P in zip(masks_MN, aggregates_MP, strict=True)]

    @property
    def _midpoint_P(self) -> Vector:  # noqa: N802
        return np.asarray((self.empty_P + self._candidate.theta_P) / np.float32(2), dtype=np.float32)

    def _candidate_of(self, mask_N: MaskArray, aggregate_P: Vector) -> Vector:
        if self._config.valuation.game == "mean" and mask_N.any() and not mask_N.all():
            aggregate_P = (aggregate_P / self._shares_N[mask_N].sum()).astype(np.float32)
        aggregate_P = aggregate_P + self._noise_P
        return self._evaluator.centred(self._direction.candidate(aggregate_P, step=self._candidate.step))

    def _curvature(self, moves: Rows, slope_1P: FloatArray) -> FloatArray:
        """Return the secants, float64 (N, N): a block of gradients and a pass over the moves at a time."""
        rows = [
            -_products(self._slopes([self.empty_P + move_P for move_P in block_nP]) - slope_1P, moves)
            for block_nP in moves.blocks()
        ]
        secants_NN = np.concatenate(rows)
        return np.asarray((secants_NN + secants_NN.T) / 2)

    def _slopes(self, thetas: Sequence[Vector]) -> FloatArray:
        return np.stack(self._evaluator.mean_gradients(thetas, SEARCH, self.sample_ids))


def _products(slopes_nP: FloatArray, moves: Rows) -> FloatArray:
    """Return <slope i, move j>, float64 (n, N)."""
    return np.concatenate([slopes_nP @ block_mP.T.astype(np.float64) for block_mP in moves.blocks()], axis=1)
