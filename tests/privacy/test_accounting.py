"""The mechanism: its epsilon, its sensitivity, its noise, an audit of the whole, and the spending kept on disk.

Shapes: K records, P parameters.
"""

import math
import re
from collections.abc import Callable

import pytest
import torch
from opacus.optimizers import DPOptimizer
from scipy.stats import beta, chi2, norm
from torch import Tensor, nn, optim

from nerv_fl.config import PrivacyConfig
from nerv_fl.errors import ConfigError
from nerv_fl.privacy.accounting import Mechanism, epsilon_of, private_optimizer
from nerv_fl.rng import Source, stream

DELTA = 1e-5
PRIVACY = PrivacyConfig()
# The protocol's: sigma 0.5 is a Gaussian mechanism of mu = 1 / sigma = 2.
TRUE_MU = 2.0


def mechanism(rate: float) -> Mechanism:
    return Mechanism(sigma=0.5, sampling_rate=rate)


# --- Epsilon ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "num_steps", "epsilon"),
    [
        (0.1, 20, 15.6),
        (0.1, 200, 45.4),
        (0.01, 20, 4.8),
        (0.01, 200, 7.7),
        (0.01, 2000, 18.1),
        (0.001, 20, 1.4),
        (0.001, 200, 2.4),
        (0.001, 2000, 3.7),
        (0.0001, 2000, 0.72),
    ],
)
def test_epsilon_of_known_mechanisms(rate: float, num_steps: int, epsilon: float) -> None:
    """Figures on which the PRV accountant and dp-accounting's PLD agree."""
    assert epsilon_of(mechanism(rate), num_steps, delta=DELTA) == pytest.approx(epsilon, abs=0.1)


def test_epsilon_grows_with_steps_and_rate_and_shrinks_with_delta() -> None:
    by_steps = [epsilon_of(mechanism(0.01), num_steps, delta=DELTA) for num_steps in (0, 1, 20, 200)]
    by_rate = [epsilon_of(mechanism(rate), 20, delta=DELTA) for rate in (0.001, 0.01, 0.1)]
    by_delta = [epsilon_of(mechanism(0.01), 20, delta=delta) for delta in (1e-3, 1e-5, 1e-7)]
    for values in (by_steps, by_rate, by_delta):
        assert values == sorted(values)
        assert len(set(values)) == len(values)
    assert by_steps[0] == 0


@pytest.mark.parametrize("rate", [0.0, 1.5, math.nan])
def test_rate_that_is_no_probability_is_refused(rate: float) -> None:
    message = f"sampling rate is {rate}, expected a number in (0, 1]"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        mechanism(rate)


# --- The optimiser ----------------------------------------------------------------------------------------------------


class Bench:
    """The real optimiser on a model of two tensors, fed with per-sample gradients from outside."""

    def __init__(
        self,
        *,
        expected_batch: int = 4,
        plant: Callable[[DPOptimizer], None] | None = None,
        privacy: PrivacyConfig = PRIVACY,
    ) -> None:
        self.model = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 3))
        sgd = optim.SGD(self.model.parameters(), lr=1.0)
        self.optimizer = private_optimizer(self.model, sgd, privacy=privacy, expected_batch=expected_batch)
        self.size = sum(parameter.numel() for parameter in self.model.parameters())
        if plant:
            plant(self.optimizer)

    def feed(self, gradients_KP: Tensor) -> None:
        sizes = [parameter.numel() for parameter in self.model.parameters()]
        for parameter, part in zip(self.model.parameters(), gradients_KP.split(sizes, dim=1), strict=True):
            parameter.grad_sample = part.reshape(-1, *parameter.shape)  # type: ignore[attr-defined]

    def clipped_sum(self, gradients_KP: Tensor) -> Tensor:
        """Return S, the sum before noise."""
        self.feed(gradients_KP)
        self.optimizer.clip_and_accumulate()
        taken: Tensor = torch.cat([vars(parameter)["summed_grad"].reshape(-1) for parameter in self.model.parameters()])
        self.optimizer.zero_grad()
        return taken

    def noisy_sum(self, gradients_KP: Tensor, generator: Source) -> Tensor:
        """Return what a step moves the weights by, times the expected batch: S plus noise."""
        self.feed(gradients_KP)
        self.optimizer.noise = generator
        self.optimizer.pre_step()
        taken = torch.cat(
            [parameter.grad.reshape(-1) for parameter in self.model.parameters() if parameter.grad is not None]
        )
        self.optimizer.zero_grad()
        expected_batch: int = self.optimizer.expected_batch_size
        return expected_batch * taken


def test_without_a_mechanism_the_sum_is_neither_clipped_nor_noised() -> None:
    bench = Bench(privacy=PrivacyConfig(protocol=False, mechanism="none"))
    gradients_KP = gradients(12, bench.size, scale=1e4)
    generator = stream(1, "noise")

    taken = bench.noisy_sum(gradients_KP, generator)

    torch.testing.assert_close(taken, gradients_KP.sum(dim=0))
    assert generator.random() == stream(1, "noise").random()
    assert epsilon_of(Mechanism(sigma=0.0, sampling_rate=0.1), 1, delta=DELTA) == math.inf


def test_another_clip_bounds_the_sum_and_scales_the_noise() -> None:
    bench = Bench(privacy=PrivacyConfig(protocol=False, sigma=2.0, clip=3.0))
    one_KP = gradients(1, bench.size, scale=1e4)

    assert float(bench.clipped_sum(one_KP).norm()) == pytest.approx(3.0, rel=1e-4)
    noise = [bench.noisy_sum(one_KP, stream(seed, "noise")) - bench.clipped_sum(one_KP) for seed in range(40)]
    assert float(torch.cat(noise).std()) == pytest.approx(6.0, rel=0.05)


def gradients(num_records: int, size: int, *, scale: float, seed: int = 0) -> Tensor:
    """Gradients of very different norms, around `scale`."""
    generator = torch.Generator().manual_seed(seed)
    lengths_K1 = scale * torch.exp(torch.randn(num_records, 1, generator=generator))
    drawn_KP = torch.randn(num_records, size, generator=generator)
    gradients_KP: Tensor = lengths_K1 * drawn_KP / drawn_KP.norm(dim=1, keepdim=True)
    return gradients_KP


def sensitivity(bench: Bench, gradients_KP: Tensor) -> float:
    """Return max |S(D) - S(D - x)| over the records x."""
    whole_P = bench.clipped_sum(gradients_KP)
    num_records = len(gradients_KP)
    kept = [torch.arange(num_records) != removed for removed in range(num_records)]
    return max(float((whole_P - bench.clipped_sum(gradients_KP[rows])).norm()) for rows in kept)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0, 1e6])
def test_one_record_moves_the_sum_by_at_most_the_clip(scale: float) -> None:
    bench = Bench()
    worst = sensitivity(bench, gradients(20, bench.size, scale=scale))
    assert worst <= PRIVACY.clip * (1 + 1e-5)
    if scale >= 1:
        assert worst > 0.99 * PRIVACY.clip


def test_sensitivity_test_sees_twice_the_clip() -> None:
    bench = Bench(plant=double_clip)
    assert sensitivity(bench, gradients(20, bench.size, scale=100.0)) > 1.9 * PRIVACY.clip


def test_small_gradients_are_not_changed() -> None:
    bench = Bench()
    small_KP = gradients(5, bench.size, scale=1e-3)
    torch.testing.assert_close(bench.clipped_sum(small_KP), small_KP.sum(dim=0))


def noise(seed: int, *path: int | str) -> Tensor:
    """Return the noise of many steps on an empty batch."""
    bench = Bench()
    generator = stream(seed, *path)
    return torch.cat([bench.noisy_sum(torch.zeros(0, bench.size), generator) for _ in range(300)])


def in_noise_band(drawn: Tensor) -> bool:
    """Whether the variance lies in the 99.9 % band of a chi-square law with (sigma C)^2."""
    degrees = len(drawn)
    ratio = float(drawn.double().square().sum()) / (PRIVACY.sigma * PRIVACY.clip) ** 2
    return bool(chi2.ppf(0.0005, degrees) < ratio < chi2.ppf(0.9995, degrees))


def test_noise_has_its_standard_deviation() -> None:
    drawn = noise(1, "noise", 1, 0)
    assert len(drawn) > 20_000
    assert in_noise_band(drawn)
    assert not in_noise_band(0.97 * drawn)
    assert not in_noise_band(1.03 * drawn)
    assert abs(float(drawn.mean())) < 4 * 0.5 / math.sqrt(len(drawn))


def test_noise_of_two_nodes_and_of_two_rounds_is_independent() -> None:
    """Equal streams would let the server subtract two updates and be left without any noise."""
    drawn = {(turn, node): noise(1, "noise", turn, node) for turn in (1, 2) for node in (0, 1)}
    limit = 4 / math.sqrt(len(drawn[1, 0]))
    keys = list(drawn)
    for place, first in enumerate(keys):
        for second in keys[place + 1 :]:
            assert abs(float(torch.corrcoef(torch.stack([drawn[first], drawn[second]]))[0, 1])) < limit
    assert torch.equal(noise(1, "noise", 1, 0), drawn[1, 0])


def test_denominator_is_the_expected_batch_whatever_was_drawn() -> None:
    for num_records in (0, 1, 9):
        bench = Bench(expected_batch=5)
        drawn_KP = gradients(num_records, bench.size, scale=0.01)
        bench.feed(drawn_KP)
        bench.optimizer.noise = stream(3)
        bench.optimizer.pre_step()
        step_P = torch.cat([item.grad.reshape(-1) for item in bench.model.parameters() if item.grad is not None])
        generator = stream(3)
        noise_P = torch.cat(
            [
                0.5 * torch.from_numpy(generator.standard_normal(tuple(item.shape))).float().reshape(-1)
                for item in bench.model.parameters()
            ]
        )
        torch.testing.assert_close(step_P, (drawn_KP.sum(dim=0) + noise_P) / 5)


# --- An audit of the whole mechanism ----------------------------------------------------------------------------------


def half_noise(optimizer: DPOptimizer) -> None:
    optimizer.noise_multiplier = 0.25


def double_clip(optimizer: DPOptimizer) -> None:
    """Clip at 2C, with the noise of C."""
    optimizer.max_grad_norm, optimizer.noise_multiplier = 2.0, 0.25


def no_clip(optimizer: DPOptimizer) -> None:
    optimizer.max_grad_norm, optimizer.noise_multiplier = 1e3, 0.5 / 1e3


def upper(errors: int, trials: int) -> float:
    """Return the exact 99.9 % upper bound of an error rate."""
    return float(beta.ppf(0.999, errors + 1, trials - errors))


def audited_mu(bench: Bench, *, num_runs: int = 800) -> float:
    """Return a lower confidence bound on mu, by a canary.

    The adversary knows every record but one, and asks whether that one, with a large gradient of known direction, was
    in the batch. From its false positives a and false negatives b, mu >= Phi^-1(1 - a) + Phi^-1(1 - b).

    Source: Nasr et al., "Tight auditing of differentially private machine learning", 2023, section 4.
    """
    others_KP = gradients(6, bench.size, scale=1.0)
    canary_P = gradients(1, bench.size, scale=50.0, seed=1)[0]
    with_canary_KP = torch.cat([others_KP, canary_P.unsqueeze(0)])
    direction_P = canary_P / canary_P.norm()
    absent = bench.clipped_sum(others_KP) @ direction_P
    present = bench.clipped_sum(with_canary_KP) @ direction_P
    threshold = (absent + present) / 2
    generator = stream(9, "audit")
    guesses = [
        [bool(bench.noisy_sum(batch_KP, generator) @ direction_P > threshold) for _ in range(num_runs)]
        for batch_KP in (others_KP, with_canary_KP)
    ]
    false_positives, false_negatives = sum(guesses[0]), num_runs - sum(guesses[1])
    return float(norm.ppf(1 - upper(false_positives, num_runs)) + norm.ppf(1 - upper(false_negatives, num_runs)))


def test_audit_finds_no_more_than_the_mechanism_admits() -> None:
    assert 1.5 < audited_mu(Bench()) <= TRUE_MU


@pytest.mark.parametrize("plant", [half_noise, double_clip, no_clip])
def test_audit_catches_a_mechanism_that_leaks(plant: Callable[[DPOptimizer], None]) -> None:
    assert audited_mu(Bench(plant=plant)) > 1.5 * TRUE_MU
