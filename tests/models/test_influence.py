"""First-order answers of each sample's loss against finite differences in float64.

Shapes: K samples, N directions, P parameters.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from nerv_fl.models import encoder as encoder_module
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.influence import mean_gradient, sample_gradients
from nerv_fl.models.losses import sample_losses_through_table
from nerv_fl.models.presets import Preset

FLOOR = 0.05
STEP = 1e-6


def losses_through_table(encoder: Encoder, batch: StateBatch) -> Tensor:
    return sample_losses_through_table(encoder, batch, movement_floor=FLOOR).loss_B


@pytest.fixture(name="directions_NP")
def fixture_directions(theta: Tensor) -> Tensor:
    return torch.randn(3, len(theta), generator=torch.Generator().manual_seed(8), dtype=torch.float64)


@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_products_equal_finite_differences(
    *,
    tiny: Preset,
    theta: Tensor,
    batch: StateBatch,
    directions_NP: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    readout: str,
) -> None:
    """Through V and the denominator too; the table keeps its rounding error, as straight-through gradients have it."""
    encoder = Encoder(tiny, readout=readout).double()
    set_flat(encoder, theta.double())
    wide = StateBatch(
        tokens_B3T=batch.tokens_B3T,
        weights_B2A=batch.weights_B2A.double(),
        targets_BA=batch.targets_BA,
        masked_BA=batch.masked_BA,
    )
    gradients_KP = np.concatenate(list(sample_gradients(encoder, wide, losses=losses_through_table, chunk=5)))
    mean_P = mean_gradient(encoder, wide, losses=losses_through_table, chunk=5)
    rounded_AD = encoder.table().detach()
    monkeypatch.setattr(encoder_module, "round_fixed_point", lambda x: x)
    shift_AD = rounded_AD - encoder.table().detach()
    monkeypatch.setattr(encoder_module, "round_fixed_point", lambda x: x + shift_AD)

    @torch.no_grad()
    def losses_at(theta_P: Tensor) -> Tensor:
        set_flat(encoder, theta_P)
        return losses_through_table(encoder, wide)

    for direction_P in directions_NP:
        change_K = losses_at(theta + STEP * direction_P) - losses_at(theta - STEP * direction_P)
        slope_K = (change_K / (2 * STEP)).numpy()
        np.testing.assert_allclose(gradients_KP @ direction_P.numpy(), slope_K, rtol=1e-4, atol=1e-5)
        assert mean_P @ direction_P.numpy() == pytest.approx(slope_K.mean(), rel=1e-4, abs=1e-5)


def test_chunk_does_not_matter(encoder: Encoder, batch: StateBatch) -> None:
    found = [
        np.concatenate(list(sample_gradients(encoder, batch, losses=losses_through_table, chunk=chunk)))
        for chunk in (1, 5, 100)
    ]
    means = [mean_gradient(encoder, batch, losses=losses_through_table, chunk=chunk) for chunk in (1, 5, 100)]
    assert found[0].shape == (batch.num_samples, encoder.num_parameters)
    assert found[0].dtype == np.float32
    assert means[0].dtype == np.float64
    for gradients_KP, mean_P in zip(found[1:], means[1:], strict=True):
        np.testing.assert_allclose(gradients_KP, found[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(mean_P, means[0], rtol=1e-3, atol=1e-5)


def test_the_mean_gradient_is_the_mean_of_the_gradients(encoder: Encoder, batch: StateBatch) -> None:
    gradients_KP = np.concatenate(list(sample_gradients(encoder, batch, losses=losses_through_table, chunk=5)))
    mean_P = mean_gradient(encoder, batch, losses=losses_through_table, chunk=5)
    np.testing.assert_allclose(mean_P, gradients_KP.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_nothing_is_left_behind(encoder: Encoder, batch: StateBatch) -> None:
    before = copy.deepcopy(encoder.state_dict())
    list(sample_gradients(encoder, batch, losses=losses_through_table, chunk=5))
    mean_gradient(encoder, batch, losses=losses_through_table, chunk=5)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(vars(parameter)["grad_sample"] is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
