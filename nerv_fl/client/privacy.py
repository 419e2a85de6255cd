"""Differential privacy of a node: the mechanism, its accountant, and the spending kept on the node's own disk.

The mechanism is the subsampled Gaussian one: Poisson sampling at rate q, per-record clipping to C, noise N(0, (sigma
C)^2) on the sum. The unit is one *step record* (a pair of states and its batch), add or remove, records taken as
fixed rows. One state is in two records and an account in all of them, so this epsilon protects neither a state nor an
account. With `privacy.unit = "chain"` it is all records of one chain: then a state, a batch and what happens to an
account within one chain are protected; an account that many chains know is not.

Sources: Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1; Gopi, Lee and Wutschitz, "Numerical
composition of differential privacy", 2021 (the PRV accountant, as Opacus implements it).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from opacus.accountants import PRVAccountant
from opacus.optimizers import DPOptimizer
from torch import nn, optim

from nerv_fl.checks import in_range
from nerv_fl.config import PrivacyConfig
from nerv_fl.errors import PrivacyError
from nerv_fl.files import write_atomically
from nerv_fl.rng import Source


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One subsampled Gaussian step: noise multiplier, Poisson sampling rate, and the unit that is drawn and clipped."""

    sigma: float
    sampling_rate: float
    unit: str = "step record"

    def __post_init__(self) -> None:
        """Refuse a batch larger than what it is drawn from."""
        in_range("sampling rate", self.sampling_rate, low=0, high=1, open_low=True)


@lru_cache(maxsize=4096)
def epsilon_of(mechanism: Mechanism, num_steps: int, *, delta: float) -> float:
    """Return epsilon at `delta` after `num_steps` steps, by the PRV accountant (an upper bound, to 0.01).

    Raises:
        PrivacyError: If the accountant gives no finite bound.
    """
    if num_steps == 0:
        return 0.0
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

    def add_noise(self) -> None:
        """Add N(0, (sigma C)^2) to each coordinate of the clipped sum."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            drawn = torch.from_numpy(std * self.noise.standard_normal(tuple(parameter.shape)))
            parameter.grad = parameter.summed_grad + drawn.to(parameter.summed_grad)


def private_optimizer(
    model: nn.Module, optimizer: optim.Optimizer, *, privacy: PrivacyConfig, expected_batch: int
) -> PrivateOptimizer:
    """Return Opacus' optimizer, which clips, adds noise and averages over the *expected* batch.

    Guarantees:
        The sum before noise changes by at most `privacy.clip` in L2 when one record is added or removed. The caller
        sets `noise` before each step.
    """
    for parameter in model.parameters():
        parameter.grad_sample = None  # type: ignore[attr-defined]
    return PrivateOptimizer(
        optimizer,
        noise_multiplier=privacy.sigma,
        max_grad_norm=privacy.clip,
        expected_batch_size=expected_batch,
        loss_reduction="mean",
    )


class SpendingLedger:
    """What a node has spent, on its own disk: written before an update leaves, keyed by (run, round), so counted once.

    Args:
        path: JSON file; created at the first entry.
        mechanism: The step this node takes.
        privacy: Delta and the budget.

    Raises:
        PrivacyError: If the file is damaged, or its steps were of another mechanism.
    """

    def __init__(self, path: Path, *, mechanism: Mechanism, privacy: PrivacyConfig) -> None:
        self._path = path
        self._mechanism = mechanism
        self._privacy = privacy
        self._steps = _read_steps(path, mechanism=mechanism)

    @property
    def num_steps(self) -> int:
        """Steps taken in all rounds of all runs."""
        return sum(self._steps.values())

    @property
    def epsilon(self) -> float:
        """Epsilon spent so far at the configured delta."""
        return epsilon_of(self._mechanism, self.num_steps, delta=self._privacy.delta)

    def spend(self, run: str, round_number: int, *, num_steps: int) -> None:
        """Account for a round on disk, before its update leaves the node; the latest round may be repeated.

        Raises:
            PrivacyError: If the round would exceed the budget, or later ones have been answered since; nothing is
            then written.
        """
        key = f"{run}/{round_number}"
        if key in self._steps:
            if key != list(self._steps)[-1]:
                raise PrivacyError(
                    f"round {round_number} of {run} was answered before, expected {list(self._steps)[-1]} or a new one"
                )
            return
        epsilon = epsilon_of(self._mechanism, self.num_steps + num_steps, delta=self._privacy.delta)
        if epsilon > self._privacy.max_epsilon:
            raise PrivacyError(
                f"epsilon after round {round_number} would be {epsilon:.3f} at delta {self._privacy.delta:g} "
                f"per {self._mechanism.unit} (Poisson sampling at {self._mechanism.sampling_rate:g}), "
                f"expected at most {self._privacy.max_epsilon:g}"
            )
        steps = {**self._steps, key: num_steps}
        write_atomically(
            self._path, json.dumps({"mechanism": asdict(self._mechanism), "steps": steps}, indent=1).encode()
        )
        self._steps = steps


def _read_steps(path: Path, *, mechanism: Mechanism) -> Mapping[str, int]:
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        spent = Mechanism(**table["mechanism"])
        steps = {str(key): _step_count(value) for key, value in table["steps"].items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise PrivacyError(f"{path} is not a spending ledger ({error}), expected the file this node wrote") from error
    if spent != mechanism:
        raise PrivacyError(
            f"{path} holds steps of {spent}, expected {mechanism}: epsilon of a mixture is not accounted for"
        )
    return steps


def _step_count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"number of steps is {value!r}")
    return value
