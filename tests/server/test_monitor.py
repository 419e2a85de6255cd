from collections.abc import Iterator
from math import sqrt

import numpy as np
import pytest
from scipy.stats import t as student_t

from nerv_fl.enclave.evaluation import Pools
from nerv_fl.models.evaluate import SampleMeasures
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.records import Homomorphism
from nerv_fl.server.monitor import Monitor, epsilon_spread
from nerv_fl.types import IntArray, Vector
from tests.federation.pretrained import Pretrained, pretrained_run
from tests.federation.tiny_run import tiny_config


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrained_run()


@pytest.fixture(scope="module")
def pools(pretrained: Pretrained) -> Iterator[Pools]:
    with pretrained.pools(pretrained.config) as opened:
        yield opened


@pytest.fixture(scope="module")
def monitor(pretrained: Pretrained, pools: Pools) -> Monitor:
    return Monitor(pools, config=pretrained.config)


def test_the_same_samples_in_every_round(monitor: Monitor, pretrained: Pretrained) -> None:
    assert monitor.standing(pretrained.weights) == monitor.standing(pretrained.weights)


def test_a_bound_that_the_gate_tested_is_taken_over(monitor: Monitor, pretrained: Pretrained) -> None:
    tested = Homomorphism(max=1e-16, p999=1e-16, mean=1e-17, bound=1e-9, n=9, violations=0)

    assert monitor.standing(pretrained.weights, homomorphism=tested).homomorphism is tested
    own = monitor.standing(pretrained.weights).encoder.homomorphism
    assert (own.n, own.violations) == (200, 0)
    assert own.max <= 1e-9


def test_the_trained_encoder_beats_random_weights_and_keeps_its_table_alone(
    monitor: Monitor, pretrained: Pretrained
) -> None:
    standing, references = monitor.standing(pretrained.weights), monitor.references(pretrained.weights)
    random, alone = references["random_weights"], references["v_alone"]

    assert isinstance(random, dict)
    assert isinstance(alone, dict)
    assert standing.loss < random["loss"]
    assert random["homomorphism"]["violations"] == 0
    assert alone["drift"] == {"mean": 0.0, "relative": 0.0, "ratio": 0.0, "max": 0.0}
    assert alone["residual_share"] == 0.0
    assert alone["effective_rank"] == pytest.approx(standing.effective_rank)
    assert alone["loss"] == alone["masked_ce"]["value"]
    assert random["masked_ce"]["unigram"] == alone["masked_ce"]["unigram"] == standing.encoder.masked_ce.unigram


def test_an_account_is_easier_to_guess_by_its_own_history(monitor: Monitor, pretrained: Pretrained) -> None:
    masked_ce = monitor.standing(pretrained.weights).encoder.masked_ce

    assert 0 < masked_ce.per_account < masked_ce.unigram < np.log(256)


def test_final_pool_against_the_same_encoder(monitor: Monitor, pretrained: Pretrained) -> None:
    final = monitor.final(pretrained.weights, pretrained.weights)

    assert (final.difference, final.ci_low, final.ci_high) == (0.0, 0.0, 0.0)
    assert final.loss_before == final.loss_after
    assert final.chains == 16
    assert not final.improved


def test_final_pool_interval_by_hand(
    monitor: Monitor, pools: Pools, *, pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses fall by 1 and by 3, alternately: mean -2, standard deviation sqrt(16/15), 15 degrees of freedom."""
    asked: list[tuple[str, list[int]]] = []
    measured = pools.measure([pretrained.weights], "final", np.arange(16) * 4)[0]

    def measure(candidates: list[Vector], pool: str, ids: IntArray) -> list[SampleMeasures]:
        asked.append((pool, ids.tolist()))
        falls = (np.zeros(16), np.tile([1.0, 3.0], 8))
        return [
            SampleMeasures(**(vars(measured) | {"loss_B": 10 - fall}))
            for fall, _ in zip(falls, candidates, strict=True)
        ]

    monkeypatch.setattr(pools, "measure", measure)
    final = monitor.final(pretrained.weights, pretrained.weights)

    half = student_t.ppf(0.975, 15) * sqrt(16 / 15) / sqrt(16)
    assert (final.loss_before, final.loss_after, final.difference) == (10.0, 8.0, -2.0)
    assert (final.ci_low, final.ci_high) == pytest.approx((-2 - half, -2 + half))
    assert final.improved
    assert asked == [("final", [4 * chain + chain % 4 for chain in range(16)])]


def test_epsilon_spread_counts_the_rounds_each_node_took_part_in() -> None:
    config = tiny_config()
    mechanism = Mechanism(sigma=0.5, sampling_rate=32 / 128)

    spread = epsilon_spread((0, 1, 1, 3, 2), config=config)

    of = [epsilon_of(mechanism, steps, delta=1e-5) for steps in (0, 1, 1, 2, 3)]
    assert (spread.min, spread.median, spread.max, spread.delta) == (0.0, of[1], of[4], 1e-5)
    assert of[1] < of[3] < of[4]


def test_the_epsilon_of_another_mechanism_is_its_own_and_named() -> None:
    config = tiny_config({"privacy.protocol": False, "privacy.sigma": 2.0})
    spread = epsilon_spread((3,), config=config)

    assert spread.max == epsilon_of(Mechanism(sigma=2.0, sampling_rate=32 / 128), 3, delta=1e-5)
    assert spread.mechanism == "not the protocol's mechanism (sigma 2.0, clip 1.0)"


def test_without_a_mechanism_there_is_no_epsilon_even_before_the_first_round() -> None:
    spread = epsilon_spread((0, 3), config=tiny_config({"privacy.protocol": False, "privacy.mechanism": "none"}))

    assert (spread.min, spread.median, spread.max) == (None, None, None)
    assert spread.mechanism == "no privacy mechanism: epsilon is infinite"


def test_epsilon_counts_steps_not_rounds() -> None:
    two_steps = tiny_config({"training.local_steps": 2})

    assert epsilon_spread((1,), config=two_steps).max == epsilon_spread((2,), config=tiny_config()).max
