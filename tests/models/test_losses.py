"""The losses against a float64 computation that follows the transactions one by one.

Shapes: B samples, A accounts, D width, P parameters.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nerv_fl.data import Samples
from nerv_fl.models import encoder as encoder_module
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.losses import (
    SampleLosses,
    data_free_gradient,
    data_free_loss,
    sample_losses,
    sample_losses_through_table,
)
from nerv_fl.models.presets import Preset
from nerv_fl.tokens import MINT, TRANSFER

FloatArray = npt.NDArray[np.float64]
FLOOR = 0.05


@pytest.fixture
def double(encoder: Encoder) -> Encoder:
    """The same encoder, in float64."""
    return copy.deepcopy(encoder).double()


@pytest.fixture
def double_batch(samples: Samples, batch: StateBatch) -> StateBatch:
    states_B2A = np.stack([samples.before, samples.after], axis=1) / samples.supply_nano[:, None, None]
    return replace(batch, weights_B2A=torch.from_numpy(states_B2A))


def losses_of(encoder: Encoder, batch: StateBatch) -> SampleLosses:
    return sample_losses(encoder, batch, table_AD=encoder.table().detach(), movement_floor=FLOOR)


@dataclass(frozen=True)
class Direct:
    """One sample, by hand: the drift vector, and sum delta from the transactions."""

    drift_D: FloatArray
    delta_D: FloatArray


@torch.no_grad()
def directly(encoder: Encoder, batch: StateBatch, samples: Samples, *, row: int) -> Direct:
    """Return E_live(S') - E_live(S) - sum delta, delta transaction by transaction."""
    assert samples.batches is not None
    supply = int(samples.supply_nano[row])
    live = []
    for state, balances in enumerate((samples.before[row], samples.after[row])):
        vectors_AD = encoder.account_vectors(encoder.hidden(batch.tokens_B3T[row : row + 1, state : state + 1]))[0, 0]
        live.append(
            sum(int(balance) / supply * vectors_AD[account].numpy() for account, balance in enumerate(balances))
        )
    table_AD = encoder.table().numpy()
    delta_D = np.zeros(table_AD.shape[1])
    batches = samples.batches
    for place in range(int(batches.offset[row]), int(batches.offset[row + 1])):
        share, kind = int(batches.amount_nano[place]) / supply, int(batches.kind[place])
        if kind in (TRANSFER, MINT):
            delta_D += share * table_AD[int(batches.receiver[place])]
        if kind != MINT:
            delta_D -= share * table_AD[int(batches.sender[place])]
    return Direct(drift_D=np.asarray(live[1] - live[0] - delta_D), delta_D=delta_D)


def test_drift_is_what_the_transactions_leave_unexplained(
    double: Encoder, double_batch: StateBatch, samples: Samples
) -> None:
    """|R(S') - R(S)| = |E_live(S') - E_live(S) - sum delta|: the two sides never meet in the code."""
    assert samples.batches is not None
    assert set(samples.batches.kind.tolist()) >= {TRANSFER}
    losses = losses_of(double, double_batch)
    for row in range(double_batch.num_samples):
        direct = directly(double, double_batch, samples, row=row)
        assert losses.drift_B[row].item() == pytest.approx(float(np.linalg.norm(direct.drift_D)), rel=1e-9, abs=1e-12)
        assert losses.delta_B[row].item() == pytest.approx(float(np.linalg.norm(direct.delta_D)), rel=1e-9, abs=1e-12)
        change_D = (losses.residual_B2D[row, 1] - losses.residual_B2D[row, 0]).detach().numpy()
        np.testing.assert_allclose(change_D, direct.drift_D, atol=1e-12)


def test_float32_agrees_with_float64(
    *, encoder: Encoder, double: Encoder, batch: StateBatch, double_batch: StateBatch
) -> None:
    single, exact = losses_of(encoder, batch), losses_of(double, double_batch)
    torch.testing.assert_close(single.loss_B.double(), exact.loss_B, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single.drift_B.double(), exact.drift_B, rtol=1e-3, atol=1e-5)


def test_loss_is_its_equation(double: Encoder, double_batch: StateBatch) -> None:
    losses = losses_of(double, double_batch)
    expected_B = 0.1 * losses.drift_B**2 / (losses.delta_B**2 + FLOOR**2) + losses.masked_ce_B
    torch.testing.assert_close(losses.loss_B, expected_B)
    assert (losses.loss_B - losses.masked_ce_B).max().item() > 1e-3


def test_cross_entropy_is_averaged_over_the_samples_own_masked_balances(
    double: Encoder, double_batch: StateBatch
) -> None:
    losses = losses_of(double, double_batch)
    logits_BAK = double.balance_logits(double.hidden(double_batch.tokens_B3T)[:, 2]).detach().numpy()
    for row in range(double_batch.num_samples):
        terms = []
        for account in np.flatnonzero(double_batch.masked_BA[row].numpy()):
            shares_K = np.exp(logits_BAK[row, account] - logits_BAK[row, account].max())
            terms.append(-np.log(shares_K[int(double_batch.targets_BA[row, account])] / shares_K.sum()))
        assert losses.masked_ce_B[row].item() == pytest.approx(float(np.mean(terms)), rel=1e-9)


@pytest.mark.parametrize("readout", ["balance", "mean"])
@pytest.mark.parametrize("through_table", [False, True])
def test_nothing_mixes_samples(
    *, tiny: Preset, theta: Tensor, batch: StateBatch, readout: str, through_table: bool
) -> None:
    """One sample turns into another with NaN weights; the others' losses do not move."""
    encoder = Encoder(tiny, readout=readout)
    set_flat(encoder, theta)
    changed = 4

    def others(batch: StateBatch) -> Tensor:
        if through_table:
            loss_B = sample_losses_through_table(encoder, batch, movement_floor=FLOOR).loss_B
        else:
            loss_B = losses_of(encoder, batch).loss_B
        return loss_B.detach()[torch.arange(batch.num_samples) != changed]

    disturbed = StateBatch(
        tokens_B3T=batch.tokens_B3T.clone(),
        weights_B2A=batch.weights_B2A.clone(),
        targets_BA=batch.targets_BA.clone(),
        masked_BA=batch.masked_BA.clone(),
    )
    disturbed.tokens_B3T[changed] = batch.tokens_B3T[changed].flip(0) * 0
    disturbed.targets_BA[changed] = 7
    disturbed.masked_BA[changed] = ~batch.masked_BA[changed]
    disturbed.weights_B2A[changed] = torch.nan
    torch.testing.assert_close(others(disturbed), others(batch), rtol=1e-6, atol=1e-6)


def test_permuted_samples_have_permuted_losses(encoder: Encoder, batch: StateBatch) -> None:
    order = torch.arange(batch.num_samples).flip(0)
    permuted = StateBatch(
        tokens_B3T=batch.tokens_B3T[order],
        weights_B2A=batch.weights_B2A[order],
        targets_BA=batch.targets_BA[order],
        masked_BA=batch.masked_BA[order],
    )
    found, expected = losses_of(encoder, permuted).loss_B, losses_of(encoder, batch).loss_B[order]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_table_and_denominator_carry_no_gradient(encoder: Encoder, batch: StateBatch) -> None:
    """Moving V by a constant leaves the gradient of the drift's numerator alone: it reaches V through nothing."""
    table_AD = encoder.table()
    losses = sample_losses(encoder, batch, table_AD=table_AD.detach(), movement_floor=FLOOR)
    assert losses.delta_B.grad_fn is None
    assert not losses.delta_B.requires_grad
    gradient = torch.autograd.grad(losses.loss_B.sum(), table_AD, allow_unused=True)[0]
    assert gradient is None


@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_losses_through_the_table_have_the_same_value(
    *, tiny: Preset, theta: Tensor, batch: StateBatch, readout: str
) -> None:
    encoder = Encoder(tiny, readout=readout)
    set_flat(encoder, theta)
    through, detached = sample_losses_through_table(encoder, batch, movement_floor=FLOOR), losses_of(encoder, batch)
    for name in ("loss_B", "drift_B", "delta_B", "masked_ce_B", "residual_B2D"):
        torch.testing.assert_close(getattr(through, name), getattr(detached, name), rtol=1e-5, atol=1e-6)
    gradients = [
        torch.autograd.grad(losses.loss_B.sum(), encoder.embedding.weight)[0] for losses in (through, detached)
    ]
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) > 1e-4


# --- Terms that need no data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[2.0, 0.0], [0.0, 1.0]], 0.3 * (1 + 0) / 2),
        ([[1.0, 0.0], [1.0, 0.0]], 3.0 * 2 / 4),
        ([[3.0, 4.0], [0.0, 1.0]], 3.0 * 2 * 0.8**2 / 4 + 0.3 * 4**2 / 2),
        ([[0.0, 0.0], [0.0, 1.0]], 3.0 * 1 / 4 + 0.3 * 1 / 2),
    ],
    ids=["orthonormal", "too long", "parallel", "oblique", "zero row"],
)
def test_data_free_terms_by_hand(table: list[list[float]], expected: float) -> None:
    found = data_free_loss(torch.tensor(table), spread_weight=3.0, size_weight=0.3)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_gradient_of_a_zero_table_is_finite() -> None:
    table_AD = torch.zeros(3, 2, requires_grad=True)
    data_free_loss(table_AD, spread_weight=3.0, size_weight=0.3).backward()
    assert table_AD.grad is not None
    assert bool(torch.isfinite(table_AD.grad).all())


@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_data_free_gradient_equals_finite_differences(
    *, tiny: Preset, theta: Tensor, monkeypatch: pytest.MonkeyPatch, readout: str
) -> None:
    """Straight through: the rounded table's gradient is that of the table shifted by its present rounding error."""
    encoder = Encoder(tiny, readout=readout).double()
    set_flat(encoder, theta.double())
    gradient_P = data_free_gradient(encoder, spread_weight=3.0, size_weight=0.3)
    rounded_AD = encoder.table().detach()
    monkeypatch.setattr(encoder_module, "round_fixed_point", lambda x: x)
    shift_AD = rounded_AD - encoder.table().detach()

    @torch.no_grad()
    def loss_at(theta_P: Tensor) -> float:
        set_flat(encoder, theta_P)
        return float(data_free_loss(encoder.table() + shift_AD, spread_weight=3.0, size_weight=0.3))

    for seed in range(3):
        direction_P = torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-6
        slope = (loss_at(theta + step * direction_P) - loss_at(theta - step * direction_P)) / (2 * step)
        assert float(gradient_P @ direction_P) == pytest.approx(slope, rel=1e-5)


def test_data_free_gradient_leaves_the_model_alone(encoder: Encoder, theta: Tensor) -> None:
    data_free_gradient(encoder, spread_weight=3.0, size_weight=0.3)
    assert torch.equal(get_flat(encoder), theta)
    assert all(parameter.grad is None for parameter in encoder.parameters())
