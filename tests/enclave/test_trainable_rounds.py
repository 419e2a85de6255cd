"""A round that trains some parameters alone: nothing else moves, and only there is noise looked for."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.config import RunConfig, TrainingConfig
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.enclave.screening import UNNOISED, noise_std
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.models.trainable import trained_P
from nerv_fl.types import Vector
from tests.enclave.one_round import decide
from tests.enclave.quadratic import QuadraticPools

P: Final = 49_376
CONFIG = replace(
    RunConfig(),
    training=TrainingConfig(trainable="positions.*"),
    data=replace(RunConfig().data, search_chains=64, certify_chains=64),
    gate=replace(RunConfig().gate, search_samples=64, certify_samples=64, monitor_samples=64, bound_batches=10),
    valuation=replace(RunConfig().valuation, gradient_samples=64),
)
MOVES = np.array(trained_P(Encoder(get_preset("quickstart")), CONFIG.training.trainable), dtype=np.bool_)


def honest(*, seed: int = 1, num_nodes: int = 6) -> Vector:
    """Return updates towards 1 in the trained coordinates, with their DP noise; zeros elsewhere."""
    rng = np.random.default_rng(seed)
    updates_NP = 0.01 + noise_std(CONFIG) * rng.standard_normal((num_nodes, P))
    return (updates_NP * MOVES).astype(np.float32)


def outcome_of(updates_NP: Vector, folder: Path) -> RoundOutcome:
    pools = QuadraticPools(np.ones(P, dtype=np.float32), free_P=np.ones(P, dtype=np.float32), moves_P=MOVES)
    updates = dict(enumerate(updates_NP))
    return decide(updates, theta_P=np.zeros(P, dtype=np.float32), evaluator=pools, config=CONFIG, folder=folder)


def test_frozen_coordinates_stand_still(tmp_path: Path) -> None:
    """Neither the server's data-free direction nor what a node sends there moves them."""
    updates_NP = honest()
    updates_NP[0, ~MOVES] = 1.0
    outcome = outcome_of(updates_NP, tmp_path)
    assert outcome.accepted
    assert outcome.theta_P is not None
    assert not outcome.theta_P[~MOVES].any()
    assert outcome.theta_P[MOVES].all()


def test_noise_is_looked_for_where_it_must_be(tmp_path: Path) -> None:
    """Zeros in frozen coordinates are no missing noise; noise in frozen ones does not make up for it elsewhere."""
    updates_NP = honest()
    updates_NP[4, MOVES] = 0.001
    updates_NP[5] = noise_std(CONFIG) * ~MOVES
    outcome = outcome_of(updates_NP, tmp_path)
    assert outcome.flags == {4: UNNOISED, 5: UNNOISED}
