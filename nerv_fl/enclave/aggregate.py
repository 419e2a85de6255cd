"""From a cohort's updates to the server's direction.

    u          = sum_i w_i u_i / W_all                         or a rule that sorts coordinates
    m'         = beta1 m + (1 - beta1) u
    v'         = beta2 v + (1 - beta2) (u + g)^2
    P          = lr / (sqrt(v' / (1 - beta2^t)) + eps)         momentum: P = lr
    x(s, u)    = theta + s P (c (beta1 m + (1 - beta1) u) + g)  c = 1 / (1 - beta1^t); momentum: c = 1

g is the server's data-free descent direction. Adam works on the *mean*, which has signal; on the nodes' own updates
it would amplify noise. With P and m held as the whole cohort left them, x is affine in the updates: that is what
makes the round's game easy to value.

Sources: Reddi et al., "Adaptive federated optimization", 2021, algorithm 2 (server Adam); Kingma and Ba, "Adam", 2015;
Yin et al., "Byzantine-robust distributed learning", 2018 (trimmed mean and median).

Shapes: N nodes, P parameters. All arrays are float32 unless said otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from nerv_fl.config import ServerConfig
from nerv_fl.errors import AggregationError
from nerv_fl.rng import stream
from nerv_fl.types import BoolArray, FloatArray, Vector
from nerv_fl.vectors import Rows

LINEAR_RULES: Final = frozenset({"mean", "clipped_mean"})
"""Rules under which a coalition's aggregate is the weighted sum of its members' (clipped) updates."""


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """The server optimiser's memory: moments (P,) and the number of accepted rounds."""

    momentum_P: Vector
    second_P: Vector
    num_rounds: int

    @classmethod
    def empty(cls, num_parameters: int) -> "OptimizerState":
        """Return the state before the first accepted round."""
        zeros_P = np.zeros(num_parameters, dtype=np.float32)
        return cls(momentum_P=zeros_P, second_P=zeros_P.copy(), num_rounds=0)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The affine map from an aggregate to a candidate, everything else held as the whole cohort left it.

    Attributes:
        theta_P: The round's weights.
        scale_P: P, the preconditioner.
        constant_P: c beta1 m + g, what the direction holds without any update.
        share: c (1 - beta1), the weight of the aggregate.
    """

    theta_P: Vector
    scale_P: Vector
    constant_P: Vector
    share: float

    def candidate(self, aggregate_P: Vector, *, step: float) -> Vector:
        """Return x(s, u)."""
        moved_P = self.constant_P + np.float32(self.share) * aggregate_P
        return np.asarray(self.theta_P + np.float32(step) * self.scale_P * moved_P, dtype=np.float32)

    def displacement(self, shares: Rows, *, step: float) -> Rows:
        """Return how far each contribution moves the candidate."""
        factor_P = np.float32(step * self.share) * self.scale_P
        return shares.map(lambda _, share_P: np.asarray(factor_P * share_P, dtype=np.float32))


def cap_weights(weights_N: FloatArray, *, max_weight: float) -> FloatArray:
    """Return weights no larger than `max_weight` times their median."""
    return np.minimum(weights_N, max_weight * float(np.median(weights_N)))


def contributions(updates: Rows, weights_N: FloatArray, *, config: ServerConfig) -> Rows:
    """Return each node's share of the aggregate, w_i u_i / W_all; clipped first under "clipped_mean".

    Under a linear rule their sum is the aggregate of the cohort, and the sum over a coalition is the coalition's.
    """
    share_N = weights_N / weights_N.sum()
    limit = config.clip_norm if config.aggregation == "clipped_mean" else None

    def contribution(node: int, update_P: Vector) -> Vector:
        share = share_N[node]
        if limit is not None:
            share *= min(1.0, limit / max(float(np.linalg.norm(update_P.astype(np.float64))), 1e-12))
        return np.asarray(share * update_P.astype(np.float64), dtype=np.float32)

    return updates.map(contribution)


def aggregate(shares: Rows, *, config: ServerConfig) -> Vector:
    """Return the aggregate of a cohort from its contributions, (P,), summed in node order in float64.

    Raises:
        AggregationError: If there is no contribution.
    """
    if not len(shares):
        raise AggregationError("cohort has 0 updates, expected at least 1")
    everyone_1N = np.ones((1, len(shares)), dtype=np.bool_)
    return np.asarray(aggregate_coalitions(shares, everyone_1N, config=config)[0])


def aggregate_coalitions(shares: Rows, masks_MN: BoolArray, *, config: ServerConfig) -> Vector:
    """Return the aggregate of each coalition, (M, P): those outside send zero updates.

    Under a linear rule this is one pass over the contributions, and memory is 8 M P bytes beside one of them; the rules
    that sort coordinates hold all of them.
    """
    if config.aggregation not in LINEAR_RULES:
        stacked_NP, rule = shares.stacked(), SORTING_RULES[config.aggregation]
        return np.stack([rule(stacked_NP * mask_N[:, None].astype(np.float32), config) for mask_N in masks_MN])
    sums_MP = np.zeros((len(masks_MN), shares.num_parameters))
    for node, share_P in enumerate(shares):
        wide_P = share_P.astype(np.float64)
        for coalition in np.flatnonzero(masks_MN[:, node]):
            sums_MP[coalition] += wide_P
    return sums_MP.astype(np.float32)


def add_mean_noise(aggregate_P: Vector, *, config: ServerConfig, seed: int, round_number: int) -> Vector:
    """Add Gaussian noise of `server.mean_noise_std` to the aggregate, off by default: seeded, and not accounted for."""
    if config.mean_noise_std == 0:
        return aggregate_P
    noise_P = stream(seed, "server", "noise", round_number).normal(0.0, config.mean_noise_std, aggregate_P.shape)
    return np.asarray(aggregate_P + noise_P, dtype=np.float32)


def next_direction(
    theta_P: Vector, state: OptimizerState, *, aggregate_P: Vector, free_P: Vector, config: ServerConfig
) -> tuple[Direction, OptimizerState]:
    """Return the server's direction and the optimiser state that stands if the round is accepted.

    Args:
        theta_P: The round's weights.
        state: State left by the last accepted round.
        aggregate_P: u.
        free_P: g, minus the gradient of the terms that need no data.
        config: Optimiser and its constants.
    """
    beta1, beta2, count = config.beta1, config.beta2, state.num_rounds + 1
    momentum_P = beta1 * state.momentum_P + (1 - beta1) * aggregate_P
    second_P = beta2 * state.second_P + (1 - beta2) * np.square(aggregate_P + free_P)
    following = OptimizerState(
        momentum_P=momentum_P.astype(np.float32), second_P=second_P.astype(np.float32), num_rounds=count
    )
    if config.optimizer == "momentum":
        correction, scale_P = 1.0, np.full_like(theta_P, config.learning_rate)
    else:
        correction = 1 / (1 - beta1**count)
        scale_P = config.learning_rate / (np.sqrt(second_P / (1 - beta2**count)) + config.epsilon)
    direction = Direction(
        theta_P=theta_P,
        scale_P=scale_P.astype(np.float32),
        constant_P=np.asarray(correction * beta1 * state.momentum_P + free_P, dtype=np.float32),
        share=correction * (1 - beta1),
    )
    return direction, following


def _trimmed_mean(contributions_NP: Vector, config: ServerConfig) -> Vector:
    num_nodes = len(contributions_NP)
    trimmed = int(config.trim_fraction * num_nodes)
    kept_NP = np.sort(contributions_NP, axis=0)[trimmed : num_nodes - trimmed]
    return np.asarray(num_nodes * kept_NP.mean(axis=0, dtype=np.float64), dtype=np.float32)


def _median(contributions_NP: Vector, _config: ServerConfig) -> Vector:
    return np.asarray(len(contributions_NP) * np.median(contributions_NP, axis=0), dtype=np.float32)


SORTING_RULES: Final[dict[str, Callable[[Vector, ServerConfig], Vector]]] = {
    "trimmed_mean": _trimmed_mean,
    "median": _median,
}
"""Rules that are no sum, by name: a new one is a function and a line here."""
