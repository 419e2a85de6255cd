"""With chains as the unit of privacy a chain is drawn whole, and its records' mean gradient is clipped as one."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from nerv_fl.client.local_training import Trainer, sampling_rate
from nerv_fl.config import PrivacyConfig, RunConfig, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.errors import ConfigError, PrivacyError
from nerv_fl.models.batch import draw_masks
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.privacy.accounting import Mechanism
from nerv_fl.privacy.budget import SpendingLedger
from nerv_fl.rng import stream
from nerv_fl.types import IntArray
from tests.client.training import (
    FLOOR,
    NUM_SAMPLES,
    STEPS,
    TINY,
    Always,
    Never,
    TinyTask,
    make_streams,
    record_gradient,
    rigged,
)

CHAINS: Final = NUM_SAMPLES // STEPS
ALL: Final = np.arange(NUM_SAMPLES)


def config_of(training: TrainingConfig) -> RunConfig:
    data = replace(RunConfig().data, steps=STEPS, samples_per_node=NUM_SAMPLES)
    return replace(RunConfig(), data=data, training=training, privacy=PrivacyConfig(unit="chain"))


def gradient_part(
    theta: Tensor, ledger: LedgerFile, *, samples: IntArray = ALL, micro_batch: int = 32, loss_scale: float = 1.0
) -> Tensor:
    """Return the sum of clipped gradients of all units: the update of every unit, less that of none."""
    training = TrainingConfig(expected_batch=1, micro_batch=micro_batch, loss_scale=loss_scale)
    trainer = Trainer(TinyTask(config_of(training), {"movement_floor": FLOOR}))
    every, none = (
        trainer.update(theta, ledger, samples=samples, streams=rigged(who, make_streams().noise))
        for who in (Always(), Never())
    )
    return none - every


def slow_sum(theta: Tensor, ledger: LedgerFile) -> Tensor:
    """One record at a time: mean over a chain, then the clip, then the sum over chains."""
    encoder = Encoder(TINY)
    set_flat(encoder, theta)
    masks_BA = draw_masks(stream(1, "masks"), num_samples=NUM_SAMPLES, num_accounts=8)
    total = torch.zeros_like(theta)
    for chain in range(CHAINS):
        rows = range(chain * STEPS, (chain + 1) * STEPS)
        gradients = [record_gradient(encoder, ledger, sample=row, masked_1A=masks_BA[row : row + 1]) for row in rows]
        mean = torch.stack(gradients).mean(dim=0)
        total += mean * min(1.0, 1.0 / float(mean.norm()))
    return total


@pytest.mark.parametrize("micro_batch", [1, 5, 9, 64])
def test_the_sum_equals_the_slow_loop_and_no_part_cuts_a_chain(
    theta: Tensor, ledger: LedgerFile, micro_batch: int
) -> None:
    found, expected = gradient_part(theta, ledger, micro_batch=micro_batch), slow_sum(theta, ledger)
    assert float((found - expected).norm() / expected.norm()) <= 1e-4


@pytest.mark.parametrize("loss_scale", [1.0, 100.0])
def test_one_chain_moves_the_sum_by_no_more_than_the_clip(theta: Tensor, ledger: LedgerFile, loss_scale: float) -> None:
    for chain in range(CHAINS):
        own = np.arange(chain * STEPS, (chain + 1) * STEPS)
        length = float(gradient_part(theta, ledger, samples=own, loss_scale=loss_scale).norm())
        assert length <= 1 + 1e-4
        if loss_scale > 1:
            assert length == pytest.approx(1, abs=1e-3)


def test_chains_are_drawn_whole(theta: Tensor, ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    real_read = LedgerFile.read

    def read(self: LedgerFile, samples: IntArray) -> object:
        drawn.append(samples.tolist())
        return real_read(self, samples)

    monkeypatch.setattr(LedgerFile, "read", read)
    trainer = Trainer(TinyTask(config_of(TrainingConfig(expected_batch=3, local_steps=40)), {"movement_floor": FLOOR}))
    trainer.update(theta, ledger, samples=ALL, streams=make_streams())
    sizes = np.array([len(batch) for batch in drawn])
    assert (sizes % STEPS == 0).all()
    assert sizes.mean() / STEPS == pytest.approx(3, abs=4 * (10 * 0.3 * 0.7 / 40) ** 0.5)
    for batch in drawn:
        assert all(batch[row] + 1 == batch[row + 1] for row in range(len(batch) - 1) if batch[row] % STEPS < STEPS - 1)


def test_the_rate_is_that_of_chains() -> None:
    config = config_of(TrainingConfig(expected_batch=3))
    assert config.sampling_rate == sampling_rate(config, ALL) == 3 / CHAINS
    assert (config.privacy_unit, config.units_per_node) == ("chain", CHAINS)


def test_more_chains_than_a_node_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=rf"training.expected_batch is 11, expected a number in \[1, {CHAINS}\]"):
        config_of(TrainingConfig(expected_batch=11))


def test_spending_names_the_unit_and_mixes_with_no_other(tmp_path: Path) -> None:
    mechanism = Mechanism(sigma=0.5, sampling_rate=0.1, unit="chain")
    path, privacy = tmp_path / "spending.json", PrivacyConfig(unit="chain")
    spending = SpendingLedger(path, mechanism=mechanism, privacy=privacy)
    with pytest.raises(PrivacyError, match=r"at delta 1e-05 per chain \(Poisson sampling at 0.1\), expected at most 8"):
        spending.spend("demo", 1, num_steps=100)
    spending.spend("demo", 1, num_steps=1)
    with pytest.raises(PrivacyError, match=r"holds steps of .*unit='chain'.*, expected .*unit='step record'"):
        SpendingLedger(path, mechanism=replace(mechanism, unit="step record"), privacy=privacy)
