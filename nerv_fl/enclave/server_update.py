"""The server's step: from the admitted updates to the candidate, and to the game that values who made it.

Shapes: N players, P parameters.
"""

from dataclasses import dataclass

import numpy as np

from nerv_fl.config import RunConfig, ServerConfig
from nerv_fl.enclave.aggregate import (
    Direction,
    OptimizerState,
    add_mean_noise,
    aggregate,
    contributions,
    next_direction,
)
from nerv_fl.enclave.coalition_game import RoundGame
from nerv_fl.enclave.deduplication import MergedPlayers
from nerv_fl.enclave.gate import Candidate, Evaluator, search_step
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.valuation import num_examples
from nerv_fl.types import BoolArray, FloatArray, Vector
from nerv_fl.vectors import Rows


@dataclass(frozen=True, kw_only=True)
class ServerStep:
    """The server's direction and the candidate found along it.

    Attributes:
        direction: The affine map from an aggregate to a candidate.
        optimizer: The optimiser state that stands if the candidate is accepted.
        candidate: The best step on the search pool.
        shares: Each player's contribution to the aggregate.
        shares_N: Each player's share of the weight.
        noise_P: Noise of the aggregate, zero unless asked for.
    """

    direction: Direction
    optimizer: OptimizerState
    candidate: Candidate
    shares: Rows
    shares_N: FloatArray
    noise_P: Vector

    def game(self, evaluator: Evaluator, config: RunConfig) -> RoundGame:
        """Return the game whose players are the contributions to this step."""
        return RoundGame(
            self.direction,
            self.shares,
            shares_N=self.shares_N,
            noise_P=self.noise_P,
            candidate=self.candidate,
            evaluator=evaluator,
            config=config,
            num_examples=num_examples(len(self.shares), config=config),
        )


def take_step(given: RoundInput, players: MergedPlayers, *, evaluator: Evaluator, config: RunConfig) -> ServerStep:
    """Aggregate the players' updates and search along the server's direction.

    Args:
        given: The round; its encoder and optimiser state are the start.
        players: Updates and weights, clones merged.
        evaluator: The held-out pools.
        config: The run's settings.
    """
    moves_P = evaluator.moves_P
    shares = contributions(_only(moves_P, players.updates), players.weights, config=config.server)
    aggregate_P = aggregate(shares, config=config.server)
    noisy_P = add_mean_noise(aggregate_P, config=config.server, seed=config.seed, round_number=given.round_number)
    free_P = evaluator.data_free_descent(given.theta_P)
    free_P = clip_free(free_P if moves_P is None else free_P * moves_P, config=config.server)
    direction, optimizer = next_direction(
        given.theta_P, given.optimizer, aggregate_P=noisy_P, free_P=free_P, config=config.server
    )
    return ServerStep(
        direction=direction,
        optimizer=optimizer,
        candidate=search_step(direction, noisy_P, evaluator=evaluator, config=config.gate),
        shares=shares,
        shares_N=players.weights / players.weights.sum(),
        noise_P=np.asarray(noisy_P - aggregate_P, dtype=np.float32),
    )


def _only(moves_P: BoolArray | None, updates: Rows) -> Rows:
    """Return the updates in the trained coordinates alone: what a node sends in others moves nothing."""
    return updates if moves_P is None else updates.map(lambda _, update_P: update_P * moves_P)


def clip_free(free_P: Vector, *, config: ServerConfig) -> Vector:
    """Shorten the data-free direction to at most `server.max_free_norm`, so that it never drowns the nodes' signal."""
    norm = float(np.linalg.norm(free_P))
    return np.asarray(free_P * min(1.0, config.max_free_norm / max(norm, 1e-12)), dtype=np.float32)
