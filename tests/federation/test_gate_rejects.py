"""What the gate must reject, with the real encoder and the real pools: no learning, harm, noise, broken read-outs."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nerv_fl.enclave.evaluation import Pools
from nerv_fl.enclave.gate import Candidate, Certification, certify
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.rng import stream
from nerv_fl.types import Vector
from tests.enclave.one_round import decide
from tests.federation.pretrained import COHORT, Pretrained, pretrained_run

NO_STEP = "no step lowers the loss on the search pool and keeps the conditions"
MEAN_NOISE_STD = 0.5 / 64 / 50**0.5
"""Standard deviation of the noise in the quickstart's aggregate: sigma C / (expected batch), over 50 nodes."""

Decide = Callable[..., RoundOutcome]


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrained_run()


@pytest.fixture(scope="module")
def pools(pretrained: Pretrained) -> Iterator[Pools]:
    with pretrained.pools(pretrained.config) as opened:
        yield opened


@pytest.fixture
def judge(pretrained: Pretrained, tmp_path: Path) -> Decide:
    """Return a function that puts updates before the enclave, under settings of the test's choice, unscreened."""

    def judge(updates: dict[int, Vector], **changes: Any) -> RoundOutcome:
        config = pretrained.settings({"enclave.noise_alarm": 0.0, "enclave.outlier_sigmas": 0.0, **changes})
        with pretrained.pools(config) as opened:
            return decide(updates, theta_P=pretrained.weights, evaluator=opened, config=config, folder=tmp_path)

    return judge


ONLY_UPDATES = {"server.spread_weight": 0.0, "server.size_weight": 0.0}
"""Without the data-free terms, only what the nodes send moves the encoder."""


def test_honest_updates_are_accepted(pretrained: Pretrained, judge: Decide) -> None:
    """The control of every test below: what they change is why those rounds are rejected."""
    outcome = judge(pretrained.honest_updates, **ONLY_UPDATES)

    assert outcome.accepted, outcome.reason
    assert outcome.step > 0
    assert outcome.gate.p_value is not None
    assert outcome.gate.p_value <= 0.05


def test_learning_rate_0(pretrained: Pretrained, judge: Decide) -> None:
    outcome = judge(pretrained.honest_updates, **{"server.learning_rate": 0.0})

    assert (outcome.accepted, outcome.reason, outcome.step) == (False, NO_STEP, 0.0)
    assert np.array_equal(outcome.theta_P, pretrained.weights)


def test_sign_flipped_updates(pretrained: Pretrained, judge: Decide) -> None:
    flipped = {node: -update_P for node, update_P in pretrained.honest_updates.items()}

    outcome = judge(flipped, **ONLY_UPDATES)

    assert not outcome.accepted
    assert outcome.reason.startswith((NO_STEP, "p-value"))
    assert np.array_equal(outcome.theta_P, pretrained.weights)
    assert outcome.optimizer.num_rounds == 0
    assert not outcome.optimizer.momentum_P.any()
    assert outcome.values == ()
    assert outcome.certificate is None


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (0.0, r"effective rank is 0\.0000 x before, below 0\.95 x"),
        (0.5, r"mean \|V_i\| is 0\.4\d\d, outside 0\.5\.\.2"),
    ],
)
def test_zeroed_and_halved_read_out(factor: float, reason: str, *, pretrained: Pretrained, pools: Pools) -> None:
    """Shrinking the read-out lowers drift and loss, so only the companions of drift can tell."""
    verdict = judge_weights(scaled_read_out(pretrained.weights, factor), pretrained=pretrained, pools=pools)

    assert re.fullmatch(reason, verdict.reason)
    assert verdict.p_value is not None
    assert verdict.p_value < 0.05


def test_nan_encoder(pretrained: Pretrained, pools: Pools) -> None:
    theta_P = pretrained.weights.copy()
    theta_P[-1] = np.nan

    verdict = judge_weights(theta_P, pretrained=pretrained, pools=pools)

    assert verdict.reason == "the encoder is not finite"
    assert verdict.homomorphism is None
    assert verdict.p_value is None


def test_infinite_read_out(pretrained: Pretrained, pools: Pools) -> None:
    verdict = judge_weights(scaled_read_out(pretrained.weights, np.inf), pretrained=pretrained, pools=pools)

    assert verdict.reason == "the encoder is not finite"


def test_the_same_encoder_again(pretrained: Pretrained, pools: Pools) -> None:
    verdict = judge_weights(pretrained.weights, pretrained=pretrained, pools=pools)

    assert verdict.reason == "p-value 1 of a lower loss is above 0.05"


def test_noise_passes_at_most_one_time_in_ten(pretrained: Pretrained, judge: Decide) -> None:
    assert sum(noise_passes(seed, pretrained=pretrained, judge=judge) for seed in range(20)) <= 2


@pytest.mark.slow
def test_noise_passes_at_most_ten_times_in_a_hundred(pretrained: Pretrained, judge: Decide) -> None:
    assert sum(noise_passes(seed, pretrained=pretrained, judge=judge) for seed in range(100)) <= 10


def noise_passes(seed: int, *, pretrained: Pretrained, judge: Decide) -> bool:
    """Return whether a round of nothing but noise is accepted: fresh optimiser, no data-free terms."""
    generator = stream(seed, "pure noise")
    updates = {
        node: generator.normal(0, MEAN_NOISE_STD * 2**0.5, len(pretrained.weights)).astype(np.float32)
        for node in (0, 1)
    }
    return judge(updates, **ONLY_UPDATES, seed=seed).accepted


def judge_weights(theta_P: Vector, *, pretrained: Pretrained, pools: Pools) -> Certification:
    """Let the certify pool judge any weights as a candidate."""
    losses_B = np.zeros(1)
    candidate = Candidate(
        step=1.0, theta_P=theta_P, search_loss_B=losses_B, base_loss_B=losses_B, reason="", ungated=0.0
    )
    return certify(
        pretrained.weights, candidate, evaluator=pools, config=pretrained.config.gate, seed=7, round_number=1
    )


def scaled_read_out(theta_P: Vector, factor: float) -> Vector:
    """Return the weights with the read-out's weight and bias times a factor."""
    encoder = Encoder(get_preset("quickstart"))
    set_flat(encoder, torch.from_numpy(theta_P))
    with torch.no_grad():
        encoder.out.weight.mul_(factor)
        encoder.out.bias.mul_(factor)
    return get_flat(encoder).numpy()


def test_cohort_is_the_six_nodes(pretrained: Pretrained) -> None:
    assert tuple(pretrained.honest_updates) == COHORT
