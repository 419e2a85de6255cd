"""From a cohort's updates to the server's direction.

    u          = sum_i w_i u_i / W_all                         or another rule of RULES
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
import numpy.typing as npt

from nerv_fl.config import ServerConfig
from nerv_fl.errors import AggregationError
from nerv_fl.rng import stream

Vector = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]

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

    def displacement(self, contributions_NP: Vector, *, step: float) -> Vector:
        """Return how far each row of contributions moves the candidate, (N, P)."""
        return np.asarray(np.float32(step * self.share) * self.scale_P * contributions_NP, dtype=np.float32)


def cap_weights(weights_N: Weights, *, max_weight: float) -> Weights:
    """Return weights no larger than `max_weight` times their median."""
    return np.minimum(weights_N, max_weight * float(np.median(weights_N)))


def contributions(updates_NP: Vector, weights_N: Weights, *, config: ServerConfig) -> Vector:
    """Return each node's share of the aggregate, w_i u_i / W_all, (N, P); clipped first under "clipped_mean".

    Under a linear rule their sum is the aggregate of the cohort, and the sum over a coalition is the coalition's.
    """
    if config.aggregation == "clipped_mean":
        norm_N1 = np.linalg.norm(updates_NP, axis=1, keepdims=True)
        updates_NP = updates_NP * np.minimum(1.0, config.clip_norm / np.maximum(norm_N1, 1e-12))
    share_N1 = (weights_N / weights_N.sum())[:, None]
    return np.asarray(share_N1 * updates_NP, dtype=np.float32)


def aggregate(contributions_NP: Vector, *, config: ServerConfig) -> Vector:
    """Return the aggregate of a cohort from its contributions, (P,), summed in node order in float64.

    Raises:
        AggregationError: If there is no contribution.
    """
    if not len(contributions_NP):
        raise AggregationError("cohort has 0 updates, expected at least 1")
    return RULES[config.aggregation](contributions_NP, config)


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


def _sum(contributions_NP: Vector, _config: ServerConfig) -> Vector:
    return np.asarray(contributions_NP.sum(axis=0, dtype=np.float64), dtype=np.float32)


def _trimmed_mean(contributions_NP: Vector, config: ServerConfig) -> Vector:
    num_nodes = len(contributions_NP)
    trimmed = int(config.trim_fraction * num_nodes)
    kept_NP = np.sort(contributions_NP, axis=0)[trimmed : num_nodes - trimmed]
    return np.asarray(num_nodes * kept_NP.mean(axis=0, dtype=np.float64), dtype=np.float32)


def _median(contributions_NP: Vector, _config: ServerConfig) -> Vector:
    return np.asarray(len(contributions_NP) * np.median(contributions_NP, axis=0), dtype=np.float32)


RULES: Final[dict[str, Callable[[Vector, ServerConfig], Vector]]] = {
    "mean": _sum,
    "clipped_mean": _sum,
    "trimmed_mean": _trimmed_mean,
    "median": _median,
}
"""Aggregation rules by name: a new one is a function and a line here."""
