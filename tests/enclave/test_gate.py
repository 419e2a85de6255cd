from dataclasses import replace
from math import atan, pi, sqrt

import numpy as np
import pytest

from nerv_fl.config import GateConfig
from nerv_fl.enclave.aggregate import Direction
from nerv_fl.enclave.gate import (
    Candidate,
    Certification,
    certify,
    one_step_per_chain,
    paired_p_value,
    search_step,
)
from nerv_fl.models.evaluate import SampleMeasures
from nerv_fl.models.weights import vector_hash
from nerv_fl.types import Vector
from tests.enclave.quadratic import QuadraticPools, with_measures

CONFIG = GateConfig(search_samples=32, certify_samples=32, monitor_samples=16, bound_batches=50)
ORIGIN = np.zeros(4, dtype=np.float32)
ONE = np.array([1, 0, 0, 0], dtype=np.float32)
NO_STEP = "no step lowers the loss on the search pool and keeps the conditions"


def along(direction_P: Vector) -> Direction:
    """Return the direction whose candidate at step s is s times the vector."""
    ones_P = np.ones(4, dtype=np.float32)
    return Direction(theta_P=ORIGIN, scale_P=ones_P, constant_P=direction_P, share=0.0)


def searched(pools: QuadraticPools, **changes: object) -> Candidate:
    """Search along the first axis."""
    return search_step(along(ONE), ORIGIN, evaluator=pools, config=replace(CONFIG, **changes))  # type: ignore[arg-type]


def certified(pools: QuadraticPools, theta_P: Vector = ONE, *, round_number: int = 1) -> Certification:
    """Let the certify pool judge a move from the origin."""
    loss_B = np.zeros(1)
    candidate = Candidate(step=1.0, theta_P=theta_P, search_loss_B=loss_B, base_loss_B=loss_B, reason="", ungated=0.0)
    return certify(ORIGIN, candidate, evaluator=pools, config=CONFIG, seed=7, round_number=round_number)


# --- Step search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimum", "step"), [(2.1, 2.0), (0.9, 1.0), (0.3, 0.25), (100.0, 4.0), (0.06, 0.0625)])
def test_the_best_step_wins(optimum: float, step: float) -> None:
    found = searched(QuadraticPools(optimum_P=optimum * ONE))

    assert found.step == step
    assert np.array_equal(found.theta_P, step * ONE)
    assert found.search_loss_B.mean() < found.base_loss_B.mean()
    assert found.reason == ""


def test_step_0_wins_where_every_step_harms() -> None:
    found = searched(QuadraticPools(optimum_P=-ONE))

    assert (found.step, found.reason) == (0.0, NO_STEP)
    assert np.array_equal(found.theta_P, ORIGIN)


def test_ties_go_to_the_smaller_step() -> None:
    """The optimum lies half-way between steps 1 and 2, so both lower the loss equally, up to the last bit."""
    found = searched(QuadraticPools(optimum_P=1.5 * ONE, spread=0.0), steps=(2.0, 1.0))

    assert found.step == 1.0


def test_a_tie_with_step_0_is_a_rejection() -> None:
    assert searched(QuadraticPools(optimum_P=0.5 * ONE, spread=0.0), steps=(1.0,)).step == 0.0


def test_a_step_that_breaks_a_condition_is_passed_over() -> None:
    """Step 4 is best by the loss, and its table has collapsed; step 2 is the best of the rest."""

    def collapse(theta_P: Vector, measures: SampleMeasures) -> SampleMeasures:
        flat_AD = np.full((4, 4), 0.5, dtype=np.float32)
        return replace(measures, table_AD=flat_AD) if theta_P[0] > 3 else measures

    assert searched(QuadraticPools(optimum_P=4 * ONE)).step == 4.0
    assert searched(QuadraticPools(optimum_P=4 * ONE, quirk=collapse)).step == 2.0


def test_a_step_without_finite_loss_is_passed_over() -> None:
    def overflow(theta_P: Vector, measures: SampleMeasures) -> SampleMeasures:
        return replace(measures, loss_B=measures.loss_B - np.inf) if theta_P[0] > 1 else measures

    assert searched(QuadraticPools(optimum_P=4 * ONE, quirk=overflow)).step == 1.0


def test_search_reads_the_search_pool_only_and_once() -> None:
    pools = QuadraticPools(optimum_P=ONE)

    searched(pools)

    ((pool, ids),) = pools.asked
    assert pool == "search"
    assert ids.tolist() == [4 * chain + chain % 4 for chain in range(32)]


# --- Certification ----------------------------------------------------------------------------------------------------


def test_a_better_encoder_is_certified() -> None:
    verdict = certified(QuadraticPools(optimum_P=ONE))

    assert verdict.reason == ""
    assert verdict.p_value is not None
    assert verdict.p_value < 1e-6
    assert verdict.after.loss < verdict.before.loss
    assert verdict.homomorphism is not None
    assert (verdict.homomorphism.n, verdict.homomorphism.bound) == (50, 1e-9)
    assert verdict.sampling_seed == vector_hash(ONE)


def test_a_worse_encoder_is_not() -> None:
    assert certified(QuadraticPools(optimum_P=-ONE)).reason == "p-value 1 of a lower loss is above 0.05"


def test_broken_bound_is_named() -> None:
    verdict = certified(QuadraticPools(optimum_P=ONE, violations=3))

    assert verdict.reason == "homomorphism bound broken on 3 of 50 batches"


def test_chains_are_drawn_once_each_from_the_candidates_hash() -> None:
    pools = QuadraticPools(optimum_P=ONE)
    certified(pools)
    certified(pools)
    certified(pools, np.nextafter(ONE, 2, dtype=np.float32))
    certified(pools, round_number=2)

    (ids, bound, again, _, other, _, later, _) = (asked for _, asked in pools.asked)
    assert [pool for pool, _ in pools.asked[:2]] == ["certify", "certify bound"]
    assert len(set((ids // 4).tolist())) == len(ids) == 32
    assert len(set((ids % 4).tolist())) > 1
    assert np.array_equal(ids, again)
    assert not np.array_equal(ids, other)
    assert not np.array_equal(ids, later)
    assert len(bound) == 50
    assert 0 <= bound.min() <= bound.max() < 64 * 4


def test_an_encoder_that_is_not_finite_is_not_asked_for_its_bound() -> None:
    pools = QuadraticPools(optimum_P=ONE, quirk=with_measures(loss_B=np.full(32, np.nan)))

    verdict = certified(pools)

    assert verdict.reason == "the encoder is not finite"
    assert verdict.p_value is None
    assert verdict.homomorphism is None
    assert [pool for pool, _ in pools.asked] == ["certify"]


# --- The paired t-test ------------------------------------------------------------------------------------------------


def test_p_value_by_hand() -> None:
    """Differences 1, 2, 3, 4: t = 2.5 / (sqrt(5/3) / 2) = sqrt(15) at 3 degrees of freedom, whose CDF is closed."""
    before_B, after_B = np.array([2.0, 3.0, 4.0, 5.0]), np.ones(4)

    by_hand = 1 / 2 - (sqrt(5) / 6 + atan(sqrt(5))) / pi

    assert by_hand == pytest.approx(0.0152, abs=1e-4)
    assert paired_p_value(before_B, after_B) == pytest.approx(by_hand)
    assert paired_p_value(after_B, before_B) == pytest.approx(1 - by_hand)


def test_p_value_without_any_change_is_1() -> None:
    assert paired_p_value(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 1.0


def test_p_value_pairs_the_samples() -> None:
    """Unpaired, a gain of 0.01 would drown in samples that differ by 100."""
    before_B = np.linspace(0, 100, 64)
    noise_B = np.random.default_rng(1).normal(0, 0.001, 64)

    assert paired_p_value(before_B, before_B - 0.01 + noise_B) < 1e-10


def test_p_value_that_does_not_exist_is_1() -> None:
    assert paired_p_value(np.array([1.0, np.nan]), np.array([0.0, 0.0])) == 1.0


def test_one_step_of_each_chain() -> None:
    assert one_step_per_chain(np.arange(5), 3).tolist() == [0, 4, 8, 9, 13]
