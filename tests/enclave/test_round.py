from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.enclave import round as enclave
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.certificate import verify_certificate
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.errors import AggregationError
from nerv_fl.types import Vector
from tests.enclave.one_round import decide
from tests.enclave.quadratic import QuadraticPools, with_measures

P = 6
ORIGIN = np.zeros(P, dtype=np.float32)
OPTIMUM = np.array([0.3, -0.2, 0.1, 0.4, -0.1, 0.2], dtype=np.float32)
SETTINGS: Flat = {
    "federation.num_nodes": 12,
    "federation.cohort_size": 12,
    "server.optimizer": "momentum",
    "server.beta1": 0.0,
    "server.learning_rate": 1.0,
    "gate.search_samples": 32,
    "gate.certify_samples": 32,
    "gate.bound_batches": 50,
    "enclave.noise_alarm": 0.0,  # these updates are made by hand
    "enclave.outlier_sigmas": 0.0,
    "valuation.method": "surrogate",
    "valuation.gradient_samples": 32,
    "valuation.audit_samples": 16,
    "valuation.evaluations": 32,
}


def settings(changes: Mapping[str, Any] | None = None) -> RunConfig:
    return build(SETTINGS | dict(changes or {}))


def towards(*numbers: int, size: float = 1.0) -> dict[int, Vector]:
    """Return updates that all point to the optimum, with some noise of each node's own."""
    return {
        node: np.asarray(size * OPTIMUM + np.random.default_rng(node).normal(0, 0.15, P), dtype=np.float32)
        for node in numbers
    }


def judged(updates: dict[int, Vector], folder: Path, **changes: Any) -> RoundOutcome:
    pools = changes.pop("pools", None) or QuadraticPools(optimum_P=OPTIMUM)
    arguments = {name: changes.pop(name) for name in ("num_asked", "optimizer", "weights") if name in changes}
    return decide(updates, theta_P=ORIGIN, evaluator=pools, config=settings(changes), folder=folder, **arguments)


def test_an_accepted_round(tmp_path: Path) -> None:
    outcome = judged(towards(0, 1, 2, 3), tmp_path)

    assert outcome.accepted
    assert outcome.step == 1.0
    assert np.allclose(outcome.theta_P, np.mean(list(towards(0, 1, 2, 3).values()), axis=0), atol=1e-6)
    assert [item.node for item in outcome.values] == [0, 1, 2, 3]
    assert outcome.value.total is not None
    assert outcome.value.empty == 0.0
    assert sum(item.value for item in outcome.values) == pytest.approx(outcome.value.total)
    assert outcome.optimizer.num_rounds == 1
    assert outcome.certificate is not None
    identity = EnclaveIdentity.load(tmp_path)
    assert verify_certificate(outcome.certificate, vendor_root=identity.vendor_root).num_batches == 50


def test_nothing_in_the_outcome_is_a_single_update(tmp_path: Path) -> None:
    """What crosses the border is the candidate, its values and its counts."""
    outcome = judged(towards(0, 1, 2, 3), tmp_path)

    vectors = [value for value in vars(outcome).values() if isinstance(value, np.ndarray)]
    assert [vector is outcome.theta_P for vector in vectors] == [True]


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("no step lowers the loss on the search pool and keeps the conditions", {"server.learning_rate": 0.0}),
        ("2 updates are valid, expected at least 5", {"federation.min_updates": 5}),
        ("homomorphism bound broken on 1 of 50 batches", {"pools": QuadraticPools(OPTIMUM, violations=1)}),
    ],
)
def test_a_rejected_round_leaves_everything_as_it_was(reason: str, changes: dict[str, Any], *, tmp_path: Path) -> None:
    optimizer = OptimizerState(momentum_P=ORIGIN + 1, second_P=ORIGIN + 2, num_rounds=4)

    outcome = judged(towards(0, 1), tmp_path, optimizer=optimizer, **changes)

    assert (outcome.accepted, outcome.reason, outcome.step) == (False, reason, 0.0)
    assert np.array_equal(outcome.theta_P, ORIGIN)
    assert outcome.optimizer is optimizer
    assert (outcome.values, outcome.certificate) == ((), None)
    assert (outcome.shapley.method, outcome.shapley.evaluations) == ("none", 0)


def test_sign_flipped_updates_are_rejected(tmp_path: Path) -> None:
    outcome = judged(towards(0, 1, 2, size=-1.0), tmp_path)

    assert outcome.reason == "no step lowers the loss on the search pool and keeps the conditions"


def test_a_candidate_that_is_not_finite_is_rejected(tmp_path: Path) -> None:
    pools = QuadraticPools(OPTIMUM, quirk=with_measures(loss_B=np.full(32, np.nan)))

    assert not judged(towards(0, 1, 2), tmp_path, pools=pools).accepted


@pytest.mark.parametrize(("num_heard", "enough"), [(69, False), (70, True)])
def test_seventy_percent_of_the_cohort_must_be_heard(num_heard: int, enough: bool, *, tmp_path: Path) -> None:
    outcome = judged(towards(*range(num_heard)), tmp_path, num_asked=100)

    assert outcome.accepted == enough
    assert outcome.reason == ("" if enough else "69 of 100 nodes were heard, expected at least 70 % of the cohort")
    assert (outcome.nodes.sampled, outcome.nodes.heard) == (100, num_heard)


@pytest.mark.parametrize("percent", [55, 60, 70, 90])
def test_a_share_that_is_met_exactly_is_enough(percent: int, tmp_path: Path) -> None:
    """0.55 x 100 is 55.000000000000007 in floating point."""
    outcome = judged(
        towards(*range(percent)), tmp_path, num_asked=100, **{"federation.min_heard_fraction": percent / 100}
    )

    assert outcome.accepted


def test_a_node_whose_update_is_refused_was_still_heard(tmp_path: Path) -> None:
    updates = towards(0, 1, 2, 3, 4, 5)
    updates[5][:] = np.nan

    outcome = judged(updates, tmp_path)

    assert outcome.accepted
    assert (outcome.nodes.heard, outcome.nodes.admitted, outcome.nodes.refused) == (6, 5, {"not-finite": 1})
    assert outcome.faults == {5: "not-finite"}
    assert [item.node for item in outcome.values] == [0, 1, 2, 3, 4]


def test_a_free_rider_is_worth_exactly_nothing(tmp_path: Path) -> None:
    for method in ("surrogate", "exact"):
        outcome = judged({**towards(0, 1, 2), 3: ORIGIN}, tmp_path / method, **{"valuation.method": method})

        rider = outcome.values[3]
        assert (rider.value, rider.standard_error, rider.ci_low, rider.ci_high) == (0.0, 0.0, 0.0, 0.0)
        assert outcome.values[0].value != 0


def test_weights_weigh_and_are_capped_at_a_multiple_of_their_median(tmp_path: Path) -> None:
    """Weights 1, 1, 1, 100 count as 1, 1, 1, 2."""
    updates = towards(0, 1, 2, 3)

    outcome = judged(updates, tmp_path, weights={0: 1.0, 1: 1.0, 2: 1.0, 3: 100.0}, **{"gate.steps": [1.0]})

    expected = np.average(list(updates.values()), axis=0, weights=[1, 1, 1, 2])
    assert np.allclose(outcome.theta_P, expected, atol=1e-6)


def test_what_momentum_gains_alone_is_reported_and_paid_to_nobody(tmp_path: Path) -> None:
    optimizer = OptimizerState(momentum_P=OPTIMUM, second_P=ORIGIN, num_rounds=1)
    riders = dict.fromkeys(range(4), ORIGIN)

    outcome = judged(riders, tmp_path, optimizer=optimizer, **{"server.beta1": 0.5})

    assert outcome.accepted
    assert outcome.value.empty is not None
    assert outcome.value.empty > 0
    assert outcome.value.total == 0.0
    assert {item.value for item in outcome.values} == {0.0}


def test_clones_are_one_player_and_share_its_value(tmp_path: Path) -> None:
    updates = towards(0, 1, 2)
    alone = judged(updates, tmp_path / "alone")

    outcome = judged({**updates, 3: updates[2]}, tmp_path / "copied")

    assert outcome.nodes.clones == 2
    assert [item.flag for item in outcome.values] == ["", "", "clone", "clone"]
    assert outcome.values[2].value == outcome.values[3].value
    assert 2 * outcome.values[2].value == pytest.approx(alone.values[2].value)
    assert np.array_equal(outcome.theta_P, alone.theta_P)


def test_the_data_free_direction_moves_the_encoder_and_is_paid_to_nobody(tmp_path: Path) -> None:
    pools = QuadraticPools(OPTIMUM, free_P=np.asarray(0.05 * OPTIMUM, dtype=np.float32))

    outcome = judged(dict.fromkeys(range(3), ORIGIN), tmp_path / "whole", pools=pools, **{"server.max_free_norm": 1.0})

    assert outcome.accepted
    assert np.allclose(outcome.theta_P, 4 * 0.05 * OPTIMUM)
    assert {item.value for item in outcome.values} == {0.0}
    short = judged(dict.fromkeys(range(3), ORIGIN), tmp_path / "cut", pools=pools, **{"server.max_free_norm": 0.01})
    assert np.linalg.norm(short.theta_P) == pytest.approx(4 * 0.01)


def test_noise_on_the_mean_belongs_to_no_node(tmp_path: Path) -> None:
    """The empty coalition holds it too, so free riders stay at 0 under it."""
    outcome = judged(
        {**towards(0, 1, 2), 3: ORIGIN},
        tmp_path,
        **{"server.mean_noise_std": 0.01, "server.aggregation": "clipped_mean"},
    )

    assert outcome.accepted
    assert outcome.values[3].value == 0.0
    assert outcome.value.empty != 0.0


def test_median_aggregation_is_valued_exactly(tmp_path: Path) -> None:
    outcome = judged(towards(0, 1, 2), tmp_path, **{"server.aggregation": "median", "valuation.method": "auto"})

    assert outcome.accepted
    assert outcome.shapley.method == "exact"


def test_median_aggregation_of_a_large_cohort_is_valued_by_coalitions(tmp_path: Path) -> None:
    settings = {"server.aggregation": "median", "valuation.method": "auto", "valuation.exact_max_nodes": 2}
    outcome = judged(towards(0, 1, 2, 3), tmp_path, **settings)

    assert outcome.accepted
    assert outcome.shapley.method == "kernel_cv"
    assert sum(item.value for item in outcome.values) == pytest.approx(outcome.value.total, rel=1e-6)


def test_a_coalition_without_a_finite_utility_rejects_the_round_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(*_: object, **__: object) -> None:
        raise AggregationError("value of the coalition (1,) is nan, expected a finite number")

    monkeypatch.setattr(enclave, "value_round", not_finite)

    outcome = judged(towards(0, 1, 2), tmp_path)

    assert not outcome.accepted
    assert outcome.reason == "value of the coalition (1,) is nan, expected a finite number"
    assert np.array_equal(outcome.theta_P, ORIGIN)
