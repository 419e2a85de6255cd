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
from nerv_fl.models.influence import gradient_products
from nerv_fl.models.losses import sample_losses_through_table
from nerv_fl.models.presets import Preset

FLOOR = 0.05
STEP = 1e-6


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
    found_KN = gradient_products(encoder, wide, directions_NP=directions_NP, movement_floor=FLOOR, chunk=5)
    rounded_AD = encoder.table().detach()
    monkeypatch.setattr(encoder_module, "round_fixed_point", lambda x: x)
    shift_AD = rounded_AD - encoder.table().detach()
    monkeypatch.setattr(encoder_module, "round_fixed_point", lambda x: x + shift_AD)

    @torch.no_grad()
    def losses_at(theta_P: Tensor) -> Tensor:
        set_flat(encoder, theta_P)
        return sample_losses_through_table(encoder, wide, movement_floor=FLOOR).loss_B

    for number, direction_P in enumerate(directions_NP):
        gained_K = losses_at(theta - STEP * direction_P) - losses_at(theta + STEP * direction_P)
        slope_K = (gained_K / (2 * STEP)).numpy()
        np.testing.assert_allclose(found_KN[:, number], slope_K, rtol=1e-4, atol=1e-5)


def test_chunk_does_not_matter(encoder: Encoder, batch: StateBatch, directions_NP: Tensor) -> None:
    found = [
        gradient_products(encoder, batch, directions_NP=directions_NP.float(), movement_floor=FLOOR, chunk=chunk)
        for chunk in (1, 5, 100)
    ]
    assert found[0].shape == (batch.num_samples, 3)
    assert found[0].dtype == np.float64
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[2], found[1], rtol=1e-4, atol=1e-4)


def test_nothing_is_left_behind(encoder: Encoder, batch: StateBatch, directions_NP: Tensor) -> None:
    before = copy.deepcopy(encoder.state_dict())
    gradient_products(encoder, batch, directions_NP=directions_NP.float(), movement_floor=FLOOR, chunk=5)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(vars(parameter)["grad_sample"] is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
