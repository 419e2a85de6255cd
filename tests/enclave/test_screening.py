"""Honest updates pass, at the false alarm that is promised; what no honest node sends does not."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from nerv_fl.config import RunConfig, build
from nerv_fl.crypto import decode_update, encode_update
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.deduplication import find_clones
from nerv_fl.enclave.screening import LOUD, REPLAY, UNNOISED, examiner, noise_std, public_directions, screen
from nerv_fl.rng import stream
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows

P = 20_000
CONFIG = RunConfig()
TAU = noise_std(CONFIG)
PUBLIC = np.zeros((3, P), dtype=np.float32)


def gradient(generator: np.random.Generator, *, length: float = 0.15) -> NDArray[np.float64]:
    """Return a heavy-tailed gradient, as an encoder's is."""
    gradient_P = generator.standard_t(3, P)
    return length * gradient_P / np.linalg.norm(gradient_P)


def cohort(num_nodes: int = 30, *, seed: int = 1, length: float = 0.15) -> Vector:
    """Return honest updates: gradients of a common and an own part, and the noise of DP-SGD."""
    generator = np.random.default_rng(seed)
    common_P = gradient(generator)
    updates = [
        0.5 * common_P + gradient(generator, length=length) + TAU * generator.normal(size=P) for _ in range(num_nodes)
    ]
    return np.asarray(updates, dtype=np.float32)


def flags(updates_NP: Vector, *, public_KP: Vector = PUBLIC, config: RunConfig = CONFIG) -> list[str]:
    look = examiner(public_KP[:, : updates_NP.shape[1]], config=config)
    return screen([look(update_P) for update_P in updates_NP], num_parameters=updates_NP.shape[1], config=config)


def test_noise_std_is_that_of_one_step() -> None:
    assert noise_std(CONFIG) == pytest.approx(1.0 * 0.5 * 1.0 / 64)


@pytest.mark.parametrize("seed", range(10))
def test_no_honest_update_is_flagged(seed: int) -> None:
    generator = np.random.default_rng(1000 + seed)
    public_KP = np.stack([gradient(generator) for _ in range(3)]).astype(np.float32)

    assert flags(cohort(100, seed=seed), public_KP=public_KP) == [""] * 100


def test_without_a_mechanism_no_honest_update_is_flagged_however_long() -> None:
    config = build({"privacy.protocol": False, "privacy.mechanism": "none"})
    updates_NP = cohort(6)
    updates_NP[0] *= 1000.0
    updates_NP[1] = 0.0

    assert flags(updates_NP, config=config) == [""] * 6


@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_the_noise_that_is_looked_for_is_the_mechanisms(sigma: float) -> None:
    config = build({"privacy.protocol": False, "privacy.sigma": sigma})
    scale = sigma / CONFIG.privacy.sigma

    assert flags(np.float32(scale) * cohort(), config=config) == [""] * 30
    assert flags(np.float32(0.9 * scale) * cohort(length=0.0), config=config) == [UNNOISED] * 30


def test_long_honest_gradients_do_not_look_as_if_they_lacked_noise() -> None:
    """The count of small coordinates only falls by what is added to the noise."""
    config = replace(CONFIG, enclave=replace(CONFIG.enclave, outlier_sigmas=0.0))

    assert flags(cohort(30, length=1.7), config=config) == [""] * 30


def test_the_false_alarm_of_pure_noise_is_the_one_that_was_asked_for() -> None:
    config = replace(CONFIG, enclave=replace(CONFIG.enclave, noise_alarm=0.01, outlier_sigmas=0.0))
    noise = (TAU * np.random.default_rng(5).normal(size=(3000, 2000))).astype(np.float32)

    alarms = flags(noise, config=config).count(UNNOISED)

    assert 12 <= alarms <= 50  # Binomial(3000, 0.01) lies there with probability 0.9997


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9, 0.93])
def test_less_noise_than_promised_is_found(part: float) -> None:
    updates = cohort()
    generator = np.random.default_rng(9)
    updates[7] = gradient(generator) + part * TAU * generator.normal(size=P)

    assert flags(updates) == [UNNOISED if node == 7 else "" for node in range(30)]


def test_zeros_and_a_stretched_gradient_lack_their_noise() -> None:
    updates = cohort()
    updates[3] = 0.0
    updates[4] = gradient(np.random.default_rng(3), length=TAU * P**0.5)

    found = flags(updates)

    assert (found[3], found[4]) == (UNNOISED, UNNOISED)
    assert found.count("") == 28


def test_a_scaled_update_is_loud_even_where_three_in_ten_are() -> None:
    updates = cohort()
    updates[:9] *= 4

    assert flags(updates) == [LOUD] * 9 + [""] * 21


def test_replayed_momentum_is_found_under_full_noise() -> None:
    generator = np.random.default_rng(2)
    updates, move_P = cohort(), gradient(generator).astype(np.float32)
    public_KP = np.stack([move_P, 2 * move_P, np.zeros(P, dtype=np.float32)])
    updates[:9] = 0.3 * TAU * P**0.5 * move_P / np.linalg.norm(move_P) + TAU * generator.normal(size=(9, P))

    assert flags(updates, public_KP=public_KP) == [REPLAY] * 9 + [""] * 21


def test_both_tests_can_be_switched_off() -> None:
    config = replace(CONFIG, enclave=replace(CONFIG.enclave, noise_alarm=0.0, outlier_sigmas=0.0))

    assert flags(np.zeros((3, P), dtype=np.float32), config=config) == [""] * 3


def test_an_empty_cohort_has_no_suspects() -> None:
    assert flags(np.zeros((0, P), dtype=np.float32)) == []


def test_more_local_steps_spread_the_lengths_further() -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, local_steps=16))
    noise = (4 * TAU * np.random.default_rng(5).normal(size=(200, P))).astype(np.float32)

    assert flags(noise, config=config) == [""] * 200


def test_what_is_public_is_the_last_move_and_the_momentum_as_it_is_and_as_adam_scales_it() -> None:
    momentum_P, second_P = np.array([1, 2], np.float32), np.array([4, 0], np.float32)
    optimizer = OptimizerState(momentum_P=momentum_P, second_P=second_P, num_rounds=1)

    public_KP = public_directions(optimizer, move_P=np.array([5, 6], np.float32), epsilon=1.0)

    assert public_KP.tolist() == [[5, 6], [1, 2], [pytest.approx(1 / 3), 2]]


# --- Updates that a codec rounded -------------------------------------------------------------------------------------

ROUNDING = ("bf16", "int8")


def coded(codec: str, *, noise_alarm: float = 1e-9, outlier_sigmas: float = 8.0) -> RunConfig:
    return replace(
        CONFIG,
        training=replace(CONFIG.training, codec=codec),
        enclave=replace(CONFIG.enclave, noise_alarm=noise_alarm, outlier_sigmas=outlier_sigmas),
    )


def rounded(updates_NP: Vector, codec: str) -> Vector:
    """Return a cohort's updates as the enclave decodes them, each rounded by its node's own stream."""
    rows = [
        decode_update(
            encode_update(update_P, codec=codec, rounding=stream(7, "codec", 1, node)),
            num_parameters=len(update_P),
            codec=codec,
        )
        for node, update_P in enumerate(updates_NP)
    ]
    return np.stack(rows)


@pytest.mark.parametrize("codec", ROUNDING)
def test_rounding_alarms_nobody_more_often(codec: str) -> None:
    """Every update that is flagged when rounded is flagged as it was: the count can only fall."""
    noise = (TAU * np.random.default_rng(5).normal(size=(3000, 2000))).astype(np.float32)
    before = flags(noise, config=coded("fp32", noise_alarm=0.01, outlier_sigmas=0.0))
    after = flags(rounded(noise, codec), config=coded(codec, noise_alarm=0.01, outlier_sigmas=0.0))

    assert before.count(UNNOISED) >= 12
    assert {node for node, flag in enumerate(after) if flag} < {node for node, flag in enumerate(before) if flag}


def test_counting_rounded_numbers_as_they_are_would_alarm_more_often() -> None:
    """A coarse grid moves a whole cell across the threshold: this is why the spacing is kept."""
    generator = np.random.default_rng(5)
    noise = TAU * generator.normal(size=(500, 2000))
    noise[:, ::500] = 0.66 * TAU * 127  # each block's scale is just below the threshold
    found = rounded(noise.astype(np.float32), "int8")

    assert UNNOISED in flags(found, config=coded("fp32", outlier_sigmas=0.0))
    assert flags(found, config=coded("int8", outlier_sigmas=0.0)) == [""] * 500


@pytest.mark.parametrize("codec", ROUNDING)
def test_no_honest_rounded_update_is_flagged(codec: str) -> None:
    public_KP = np.stack([gradient(np.random.default_rng(6)) for _ in range(3)]).astype(np.float32)

    assert flags(rounded(cohort(100), codec), public_KP=public_KP, config=coded(codec)) == [""] * 100


@pytest.mark.parametrize(("codec", "part"), [("bf16", 0.0), ("bf16", 0.9), ("int8", 0.0), ("int8", 0.85)])
def test_less_noise_than_promised_is_found_after_rounding(codec: str, part: float) -> None:
    updates, generator = cohort(), np.random.default_rng(9)
    updates[7] = gradient(generator) + part * TAU * generator.normal(size=P)
    updates[8] = gradient(generator, length=TAU * P**0.5)  # a noise skipper: stretched to an honest length
    updates[9] = 0.0

    found = flags(rounded(updates, codec), config=coded(codec))

    assert found == [UNNOISED if node in {7, 8, 9} else "" for node in range(30)]


@pytest.mark.parametrize("codec", ROUNDING)
def test_loud_and_replayed_updates_are_found_after_rounding(codec: str) -> None:
    generator = np.random.default_rng(2)
    updates, move_P = cohort(), gradient(generator).astype(np.float32)
    updates[:9] = 0.3 * TAU * P**0.5 * move_P / np.linalg.norm(move_P) + TAU * generator.normal(size=(9, P))
    updates[20:24] *= 4

    found = flags(rounded(updates, codec), public_KP=move_P[None], config=coded(codec))

    assert found == [REPLAY] * 9 + [""] * 11 + [LOUD] * 4 + [""] * 6


@pytest.mark.parametrize("codec", ROUNDING)
def test_copies_are_clones_though_each_was_rounded_apart(codec: str) -> None:
    updates = cohort()
    updates[[4, 9]] = updates[2]

    look = examiner(PUBLIC, config=CONFIG)
    rounded_NP = rounded(updates, codec)
    traits = [look(update_P) for update_P in rounded_NP]
    assert find_clones(Rows.of(rounded_NP), traits, cosine=0.95) == [(2, 4, 9)]
