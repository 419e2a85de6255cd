"""Training that leaves parameters alone: they stand still, exactly, and the rest is clipped by itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nerv_fl.config import DP_ENGINES, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.batch import draw_masks
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.rng import stream
from tests.client.training import (
    TINY,
    Always,
    Never,
    Setting,
    draw_theta,
    make_streams,
    open_ledger,
    record_gradient,
    rigged,
)

RECORD = 5


@pytest.fixture(scope="module", name="ledger")
def fixture_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerFile]:
    folder: Path = tmp_path_factory.mktemp("node")
    with open_ledger(folder) as file:
        yield file


@pytest.mark.parametrize("engine", DP_ENGINES)
def test_frozen_parameters_stand_still_and_the_rest_is_clipped_by_itself(ledger: LedgerFile, engine: str) -> None:
    """One record: its gradient in the trained parameters alone is scaled, clipped and noised."""
    theta = draw_theta()
    training = TrainingConfig(
        expected_batch=1, trainable="positions.* norm.*", loss_scale=40.0, dp_engine=engine, micro_batch=4
    )
    setting = Setting(training, samples=np.arange(RECORD, RECORD + 1))
    found = setting.update(theta, ledger, streams=rigged(Always(), make_streams().noise))
    only_noise = setting.update(theta, ledger, streams=rigged(Never(), make_streams().noise))
    encoder = Encoder(TINY)
    set_flat(encoder, theta)
    sizes = {name: item.numel() for name, item in encoder.named_parameters()}
    trained = torch.cat([torch.full((sizes[name],), name.startswith(("positions", "norm"))) for name in sizes])
    masked_1A = draw_masks(stream(1, "masks"), num_samples=1, num_accounts=8)
    gradient = 40.0 * record_gradient(encoder, ledger, sample=RECORD, masked_1A=masked_1A)[trained]
    expected = -gradient * min(1.0, 1.0 / float(gradient.norm()))
    difference = (found - only_noise)[trained] - expected
    assert not found[~trained].any()
    assert float(difference.norm() / expected.norm()) <= 1e-4
    assert float(only_noise[trained].std()) == pytest.approx(0.5, rel=0.25)


def test_a_name_of_no_parameter_is_refused() -> None:
    setting = Setting(TrainingConfig(trainable="position.*"))
    with pytest.raises(ValueError, match=r"training.trainable holds 'position\.\*', expected names of parameters"):
        setting.trainer()


def test_theta_is_not_changed(ledger: LedgerFile) -> None:
    theta: Tensor = draw_theta()
    before = theta.clone()
    Setting(TrainingConfig(expected_batch=8, trainable="positions.*")).update(theta, ledger)
    assert torch.equal(theta, before)
