"""A cohort's updates never stand in memory together, and whether they do changes no bit.

Shapes: N nodes, P parameters.
"""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nerv_fl.config import Flat, build
from nerv_fl.enclave.aggregate import OptimizerState, aggregate, contributions, next_direction
from nerv_fl.enclave.coalition_game import RoundGame
from nerv_fl.enclave.deduplication import find_clones, merge_clones
from nerv_fl.enclave.gate import search_step
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.enclave.screening import examiner, noise_std, screen
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows
from tests.enclave.one_round import decide
from tests.enclave.quadratic import QuadraticPools

N, P = 800, 40_000
SETTINGS: Flat = {
    "federation.num_nodes": N,
    "server.optimizer": "momentum",
    "server.learning_rate": 1.0,
    "gate.search_samples": 16,
    "gate.certify_samples": 16,
    "gate.bound_batches": 10,
    "valuation.gradient_samples": 16,
    "valuation.audit_samples": 8,
    "valuation.evaluations": 32,
}


def test_a_cohort_is_screened_merged_aggregated_and_played_a_row_at_a_time() -> None:
    config = build(SETTINGS)
    optimum_P = np.full(P, 1e-3, dtype=np.float32)

    def update(node: int) -> Vector:
        noise_P = np.random.default_rng(node % (N - 1)).standard_normal(P, dtype=np.float32)
        return np.asarray(optimum_P + np.float32(noise_std(config)) * noise_P)

    updates, pools, zeros_P = Rows(update, num_rows=N, num_parameters=P), QuadraticPools(optimum_P), np.zeros(P, "f4")
    tracemalloc.start()
    look = examiner(optimum_P[None], config=config)
    traits = [look(update_P) for update_P in updates]
    assert screen(traits, num_parameters=P, config=config) == [""] * N
    groups = find_clones(updates, traits, cosine=0.95)
    players = merge_clones(updates, np.ones(N), groups=groups)
    shares = contributions(players.updates, players.weights, config=config.server)
    aggregate_P = aggregate(shares, config=config.server)
    direction, _ = next_direction(
        zeros_P, OptimizerState.empty(P), aggregate_P=aggregate_P, free_P=zeros_P, config=config.server
    )
    game = RoundGame(
        direction,
        shares,
        shares_N=players.weights / players.weights.sum(),
        noise_P=zeros_P,
        candidate=search_step(direction, aggregate_P, evaluator=pools, config=config.gate),
        evaluator=pools,
        config=config,
        num_examples=8,
    )
    masks_MN = np.random.default_rng(1).random((40, N - 1)) < 0.5
    values_MK = game.per_example(masks_MN, num_examples=8)
    controls = game.controls(np.ones(N - 1, dtype=np.bool_))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups == [(0, N - 1)]
    np.testing.assert_allclose(controls[0](masks_MN), values_MK.mean(axis=1), rtol=0.3)
    assert peak_bytes < 4 * N * P / 2


@pytest.mark.parametrize("game", ["fixed", "mean"])
def test_memory_changes_no_bit(game: str, tmp_path: Path) -> None:
    optimum_P = np.linspace(-0.3, 0.3, 50, dtype=np.float32)
    updates = {
        node: np.asarray(optimum_P + np.random.default_rng(node).normal(0, 0.15, 50), dtype=np.float32)
        for node in range(14)
    }
    updates[13] = updates[4]
    unscreened: Flat = {"enclave.noise_alarm": 0.0, "enclave.outlier_sigmas": 0.0, "federation.cohort_size": 14}
    played: Flat = {"valuation.game": game, "valuation.curvature": True, "valuation.evaluations": 160}

    def outcome(memory_mb: float) -> RoundOutcome:
        config = build(SETTINGS | unscreened | played | {"enclave.memory_mb": memory_mb})
        folder = tmp_path / str(memory_mb)
        folder.mkdir()
        pools = QuadraticPools(optimum_P)
        return decide(updates, theta_P=np.zeros(50, np.float32), evaluator=pools, config=config, folder=folder)

    kept, opened_again = outcome(1.0), outcome(0.0)
    assert kept.accepted
    assert kept.nodes.clones == 2
    assert np.array_equal(kept.theta_P, opened_again.theta_P)
    assert kept.values == opened_again.values
