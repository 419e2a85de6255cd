"""The privacy of a whole update, from the outside: its noise, its sensitivity, and an audit.

Shapes: A accounts.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import beta, chi2, norm
from torch import Tensor

from nerv_fl.client.local_training import Streams, Trainer
from nerv_fl.config import TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.rng import stream
from nerv_fl.tasks import encoder as encoder_task
from tests.client.training import Always, Never, Setting, make_streams, rigged

# --- Noise ------------------------------------------------------------------------------------------------------------


def noise_of(theta: Tensor, ledger: LedgerFile, streams: Streams, *, learning_rate: float = 1.0) -> Tensor:
    training = TrainingConfig(expected_batch=8, learning_rate=learning_rate)
    return 8 / learning_rate * Setting(training).update(theta, ledger, streams=streams)


def test_empty_batch_still_steps_with_the_whole_noise(theta: Tensor, ledger: LedgerFile) -> None:
    noise = noise_of(theta, ledger, rigged(Never(), stream(3)))
    ratio = float(noise.double().square().sum()) / 0.5**2
    assert chi2.ppf(0.0005, len(theta)) < ratio < chi2.ppf(0.9995, len(theta))


def test_noise_of_a_full_batch_has_its_standard_deviation(theta: Tensor, ledger: LedgerFile) -> None:
    """Two draws of noise on the same records: their difference has twice the variance."""
    first, second = (noise_of(theta, ledger, rigged(Always(), stream(seed))) for seed in (3, 4))
    ratio = float((first - second).double().square().sum()) / (2 * 0.5**2)
    assert chi2.ppf(0.0005, len(theta)) < ratio < chi2.ppf(0.9995, len(theta))


def test_noise_of_nodes_rounds_and_steps_is_independent(theta: Tensor, ledger: LedgerFile) -> None:
    drawn = []
    for turn, node in ((1, 0), (1, 1), (2, 0)):
        generator = make_streams(round_number=turn, node=node).noise
        drawn += [noise_of(theta, ledger, rigged(Never(), generator)) for _step in range(2)]
    limit = 4 / math.sqrt(len(theta))
    correlation = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert float(correlation.abs().max()) < limit


def test_noise_does_not_move_with_torchs_global_generator(theta: Tensor, ledger: LedgerFile) -> None:
    trainer = Setting(TrainingConfig(expected_batch=8)).trainer()
    state = torch.get_rng_state()
    trainer.update(theta, ledger, samples=np.arange(0, 20), streams=make_streams())
    assert torch.equal(torch.get_rng_state(), state)


# --- Sensitivity, from the outside ------------------------------------------------------------------------------------


def all_masked(_: np.random.Generator, *, num_samples: int, num_accounts: int) -> npt.NDArray[np.bool_]:
    return np.ones((num_samples, num_accounts), dtype=np.bool_)


@pytest.fixture
def fixed_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records as fixed rows: each has its mask, whoever else is drawn."""
    monkeypatch.setattr(encoder_task, "draw_masks", all_masked)


def scaled_sum(trainer: Trainer, theta: Tensor, ledger: LedgerFile, *, stop: int, noise: int) -> Tensor:
    """Return S + noise of the records 0 to stop, all drawn."""
    return -8 * trainer.update(theta, ledger, samples=np.arange(0, stop), streams=rigged(Always(), stream(noise)))


@pytest.mark.usefixtures("fixed_masks")
def test_one_record_moves_the_update_by_at_most_the_clip(theta: Tensor, ledger: LedgerFile) -> None:
    """Equal noise cancels, and the denominator is the same with 8 records and with 9."""
    trainer = Setting(TrainingConfig(expected_batch=8, micro_batch=4)).trainer()
    moved = []
    for last in range(2, 14):
        with_it, without_it = (scaled_sum(trainer, theta, ledger, stop=stop, noise=5) for stop in (last + 1, last))
        moved.append(float((with_it - without_it).norm()))
    # The weights' own rounding, divided by the step, is 1e-6 of the sum.
    assert max(moved) <= 1 + 1e-5 + 1e-4
    assert max(moved) > 0.99


def upper(errors: int, trials: int) -> float:
    return float(beta.ppf(0.99, errors + 1, trials - errors))


def audited_mu(trainer: Trainer, theta: Tensor, ledger: LedgerFile, *, num_runs: int = 100) -> float:
    """Return a lower confidence bound on mu: was the last record, whose gradient is known, in the batch?"""
    present, absent = (scaled_sum(trainer, theta, ledger, stop=stop, noise=0) for stop in (3, 2))
    canary = present - absent
    threshold = float((present + absent - 2 * noise_alone(trainer, theta, ledger)) @ canary) / 2
    guesses = [
        [
            float(scaled_sum(trainer, theta, ledger, stop=stop, noise=seed) @ canary) > threshold
            for seed in range(stop * 10**4, stop * 10**4 + num_runs)
        ]
        for stop in (2, 3)
    ]
    false_positives, false_negatives = sum(guesses[0]), num_runs - sum(guesses[1])
    return float(norm.ppf(1 - upper(false_positives, num_runs)) + norm.ppf(1 - upper(false_negatives, num_runs)))


def noise_alone(trainer: Trainer, theta: Tensor, ledger: LedgerFile) -> Tensor:
    return -8 * trainer.update(theta, ledger, samples=np.arange(0, 1), streams=rigged(Never(), stream(0)))


@pytest.mark.usefixtures("fixed_masks")
@pytest.mark.parametrize(
    ("clip", "noise_multiplier", "leaks"),
    [(1.0, 0.5, False), (1.0, 0.25, True), (2.0, 0.25, True)],
    ids=["correct", "half noise", "twice the clip"],
)
def test_audit_of_the_whole_update(
    *, theta: Tensor, ledger: LedgerFile, clip: float, noise_multiplier: float, leaks: bool
) -> None:
    """The true mu is 1 / sigma = 2; sampling at rate 1 amplifies nothing."""
    trainer = Setting(TrainingConfig(expected_batch=8)).trainer()
    trainer._optimizer.max_grad_norm, trainer._optimizer.noise_multiplier = clip, noise_multiplier
    found = audited_mu(trainer, theta, ledger)
    assert (found > 2) == leaks
    assert found > 1
