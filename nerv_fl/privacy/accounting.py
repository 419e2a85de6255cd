"""Differential privacy of a node: the mechanism and its accountant; `spending` keeps what was spent.

The mechanism is the subsampled Gaussian one: Poisson sampling at rate q, per-record clipping to C, noise N(0, (sigma
C)^2) on the sum. The unit is one *step record* (a pair of states and its batch), add or remove, records taken as
fixed rows. One state is in two records and an account in all of them, so this epsilon protects neither a state nor an
account. With `privacy.unit = "chain"` it is all records of one chain: then a state, a batch and what happens to an
account within one chain are protected; an account that many chains know is not.

Sources: Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1; Gopi, Lee and Wutschitz, "Numerical
composition of differential privacy", 2021 (the PRV accountant, as Opacus implements it).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from opacus.accountants import PRVAccountant
from opacus.optimizers import DPOptimizer
from torch import nn, optim

from nerv_fl.config import PrivacyConfig, RunConfig
from nerv_fl.errors import PrivacyError
from nerv_fl.rng import Source
from nerv_fl.validation import in_range


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One subsampled Gaussian step: noise multiplier, Poisson sampling rate, and the unit that is drawn and clipped.

    A noise multiplier of 0 stands for no mechanism at all: neither clip nor noise, and no finite epsilon.
    """

    sigma: float
    sampling_rate: float
    unit: str = "step record"

    def __post_init__(self) -> None:
        """Refuse a batch larger than what it is drawn from."""
        in_range("sampling rate", self.sampling_rate, low=0, high=1, open_low=True)

    @property
    def is_private(self) -> bool:
        """Whether there is an epsilon to account for."""
        return self.sigma > 0


def mechanism_of(config: RunConfig, *, sampling_rate: float) -> Mechanism:
    """Return the step that a run's settings ask of a node which samples its units at this rate."""
    sigma = config.privacy.noise_multiplier
    return Mechanism(sigma=sigma, sampling_rate=sampling_rate, unit=config.privacy_unit)


@lru_cache(maxsize=4096)
def epsilon_of(mechanism: Mechanism, num_steps: int, *, delta: float) -> float:
    """Return epsilon at `delta` after `num_steps` steps, by the PRV accountant (an upper bound, to 0.01).

    Steps without a mechanism have an infinite epsilon.

    Raises:
        PrivacyError: If the accountant gives no finite bound.
    """
    if num_steps == 0:
        return 0.0
    if not mechanism.is_private:
        return math.inf
    accountant = PRVAccountant()
    accountant.history = [(mechanism.sigma, mechanism.sampling_rate, num_steps)]
    epsilon = float(accountant.get_epsilon(delta))
    if not 0 <= epsilon < float("inf"):
        raise PrivacyError(f"epsilon after {num_steps} steps of {mechanism} is {epsilon}, expected a finite bound")
    return epsilon


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with noise from a source of ours: torch's generators keep 32 bits of a seed.

    Attributes:
        noise: Where the noise comes from; to be set before each step.
    """

    noise: Source

    def forget(self) -> None:
        """Drop skips that were signalled for steps which then failed, and the accumulation that they were part of."""
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False

    def add_noise(self) -> None:
        """Add N(0, (sigma C)^2) to each coordinate of the clipped sum; nothing without a mechanism."""
        if not self.noise_multiplier:
            for parameter in self.params:
                parameter.grad = parameter.summed_grad
            return
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            drawn = torch.from_numpy(std * self.noise.standard_normal(tuple(parameter.shape)))
            parameter.grad = parameter.summed_grad + drawn.to(parameter.summed_grad)


def private_optimizer(
    model: nn.Module, optimizer: optim.Optimizer, *, privacy: PrivacyConfig, expected_batch: int
) -> PrivateOptimizer:
    """Return Opacus' optimizer, which clips, adds noise and averages over the *expected* batch.

    Without a mechanism it averages alone: the clip is then the largest float32, which shortens no finite gradient.

    Guarantees:
        The sum before noise changes by at most `privacy.clip` in L2 when one record is added or removed. The caller
        sets `noise` before each step.
    """
    for parameter in model.parameters():
        parameter.grad_sample = None  # type: ignore[attr-defined]
    return PrivateOptimizer(
        optimizer,
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.clip if privacy.is_private else torch.finfo(torch.float32).max,
        expected_batch_size=expected_batch,
        loss_reduction="mean",
    )
