"""A node's local training against a loop that takes one record at a time."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nerv_fl.client import local_training as train
from nerv_fl.client.local_training import Trainer
from nerv_fl.config import DP_ENGINES, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.errors import ConfigError
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.losses import sample_losses
from nerv_fl.rng import stream
from nerv_fl.tasks import encoder as encoder_task
from tests.client.training import (
    NUM_SAMPLES,
    Always,
    Never,
    Setting,
    make_streams,
    rigged,
)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_update_equals_the_slow_loop(theta: Tensor, ledger: LedgerFile) -> None:
    training = TrainingConfig(expected_batch=8, local_steps=3, learning_rate=0.5, micro_batch=3)
    setting = Setting(training)
    assert relative_error(setting.update(theta, ledger), setting.slow_update(theta, ledger)) <= 1e-5


@pytest.mark.parametrize("dp_engine", DP_ENGINES)
def test_gradient_part_of_the_update_equals_the_slow_loop(theta: Tensor, ledger: LedgerFile, dp_engine: str) -> None:
    """The noise, equal on both sides, would hide a small error: it is subtracted."""
    setting = Setting(TrainingConfig(expected_batch=8, micro_batch=3, dp_engine=dp_engine))
    noise_only = setting.update(theta, ledger, streams=rigged(Never(), make_streams().noise))
    found = setting.update(theta, ledger) - noise_only
    expected = setting.slow_update(theta, ledger) - noise_only
    assert relative_error(found, expected) <= 1e-4


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_micro_batch_does_not_matter(theta: Tensor, ledger: LedgerFile, micro_batch: int) -> None:
    found, expected = (
        Setting(TrainingConfig(expected_batch=8, local_steps=2, micro_batch=size)).update(theta, ledger)
        for size in (micro_batch, 3)
    )
    assert relative_error(found, expected) <= 1e-6


def test_blocks_computed_again_give_the_same_update(theta: Tensor, ledger: LedgerFile) -> None:
    training = TrainingConfig(expected_batch=8, local_steps=2, micro_batch=1)
    plain = Setting(training).update(theta, ledger)
    again = Setting(replace(training, checkpointing=True)).update(theta, ledger)
    assert relative_error(again, plain) <= 1e-6


def test_an_empty_batch_is_noise_alone_with_either_engine(theta: Tensor, ledger: LedgerFile) -> None:
    found, expected = (
        Setting(TrainingConfig(expected_batch=8, dp_engine=name)).update(
            theta, ledger, streams=rigged(Never(), make_streams().noise)
        )
        for name in DP_ENGINES
    )
    assert torch.equal(found, expected)
    assert float(found.norm()) > 0


def test_same_streams_give_the_same_bits(theta: Tensor, ledger: LedgerFile) -> None:
    setting = Setting(TrainingConfig(expected_batch=8, local_steps=2))
    assert torch.equal(setting.update(theta, ledger), setting.update(theta, ledger))
    trainer = setting.trainer()
    for _ in range(2):
        again = trainer.update(theta, ledger, samples=setting.samples, streams=make_streams())
        assert torch.equal(again, setting.update(theta, ledger))


def test_theta_is_not_changed(theta: Tensor, ledger: LedgerFile) -> None:
    before = theta.clone()
    update = Setting(TrainingConfig(expected_batch=8)).update(theta, ledger)
    assert torch.equal(theta, before)
    assert float(update.norm()) > 0


def test_records_outside_the_nodes_range_are_never_read(theta: Tensor, ledger: LedgerFile) -> None:
    @dataclass
    class Spy:
        seen: set[int] = field(default_factory=set)

        def read(self, sample_ids: npt.NDArray[np.int64]) -> object:
            self.seen |= set(sample_ids.tolist())
            return ledger.read(sample_ids)

    spy = Spy()
    setting = Setting(TrainingConfig(expected_batch=4, local_steps=12), samples=np.arange(8, 16))
    setting.update(theta, spy)  # type: ignore[arg-type]
    assert spy.seen == set(range(8, 16))


def test_records_are_drawn_by_poisson_sampling(
    theta: Tensor, ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes vary as a binomial law's do, and every record comes up as often as any other."""
    drawn: list[list[int]] = []

    class Recorder(Trainer):
        def _step(self, batch: object, *, only_sum: bool = False) -> None:
            """Take no step."""

    real_read = LedgerFile.read

    def read(self: LedgerFile, sample_ids: npt.NDArray[np.int64]) -> object:
        drawn.append(sample_ids.tolist())
        return real_read(self, sample_ids[:0])

    monkeypatch.setattr(LedgerFile, "read", read)
    setting = Setting(TrainingConfig(expected_batch=10, local_steps=2000), samples=np.arange(0, NUM_SAMPLES))
    trainer = Recorder(setting.task())
    trainer.update(theta, ledger, samples=setting.samples, streams=make_streams())
    sizes = np.array([len(batch) for batch in drawn])
    assert sizes.mean() == pytest.approx(10, abs=4 * math.sqrt(7.5 / 2000))
    assert sizes.var() == pytest.approx(7.5, rel=0.15)
    often = np.bincount(np.concatenate(drawn), minlength=NUM_SAMPLES)
    assert np.abs(often - 500).max() < 4.5 * math.sqrt(2000 * 0.25 * 0.75)


# --- Where it trains --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has such a device")
def test_a_device_that_is_not_there_is_refused() -> None:
    message = r"^training\.device is 'cuda', expected 'cpu': torch finds no such device here$"
    with pytest.raises(ConfigError, match=message):
        Setting(TrainingConfig(device="cuda")).trainer()


def test_every_part_of_a_batch_goes_to_the_models_device(
    theta: Tensor, ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.device, int]] = []

    def spy(batch: StateBatch, device: torch.device) -> StateBatch:
        seen.append((device, batch.num_samples))
        return batch

    monkeypatch.setattr(train, "moved", spy)
    setting = Setting(TrainingConfig(expected_batch=8, micro_batch=5))
    setting.update(theta, ledger, streams=rigged(Always(), stream(1)))
    assert seen == [(torch.device("cpu"), 5)] * 7 + [(torch.device("cpu"), 1)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dp_engine", DP_ENGINES)
def test_a_gpu_gives_the_same_update(theta: Tensor, ledger: LedgerFile, dp_engine: str) -> None:
    training = TrainingConfig(expected_batch=8, local_steps=2, micro_batch=3, dp_engine=dp_engine)
    found = Setting(replace(training, device="cuda")).update(theta, ledger)
    assert found.device.type == "cpu"
    assert relative_error(found, Setting(training).update(theta, ledger)) <= 1e-3


# --- A step that fails half-way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dp_engine", DP_ENGINES)
def test_failed_update_leaves_nothing_for_the_next_node(
    theta: Tensor, ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch, dp_engine: str
) -> None:
    """The model is resident: a node's clipped gradients must not end up in another node's update."""
    setting = Setting(TrainingConfig(expected_batch=8, micro_batch=2, dp_engine=dp_engine))
    trainer = setting.trainer()
    calls = 0

    def failing(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise MemoryError("planted")
        return sample_losses(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(encoder_task, "sample_losses", failing)
        with pytest.raises(MemoryError, match="planted"):
            trainer.update(theta, ledger, samples=np.arange(0, 12), streams=rigged(Always(), stream(1)))
    found = trainer.update(theta, ledger, samples=setting.samples, streams=make_streams())
    assert torch.equal(found, setting.update(theta, ledger))
