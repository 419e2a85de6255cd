"""The encoder's read-outs against their equations, the rounding, and the flat parameter vector.

Shapes: B samples, G states, T tokens, A accounts, D width, P parameters.
"""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nerv_fl.data import Samples
from nerv_fl.errors import ConfigError
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, centre, get_flat, round_fixed_point, set_flat
from nerv_fl.models.presets import Preset
from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear, Positions
from nerv_fl.rng import torch_stream
from nerv_fl.tokens import tokens

# --- Rounding ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-64, 64, width=32), min_size=1, max_size=20))
def test_rounded_values_are_the_nearest_multiples_of_two_to_the_minus_16(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    rounded = round_fixed_point(x).double()
    assert torch.equal((rounded * 65_536).round(), rounded * 65_536)
    assert float((rounded - x.double()).abs().max()) <= 2.0**-17


def test_rounding_passes_the_gradient_straight_through() -> None:
    x = torch.tensor([0.3, -1.7, 0.0], requires_grad=True)
    (round_fixed_point(x) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


# --- The table --------------------------------------------------------------------------------------------------------


def test_table_is_a_multiple_of_two_to_the_minus_16_and_has_a_gradient(encoder: Encoder) -> None:
    table_AD = encoder.table()
    scaled = table_AD.detach().double() * 65_536
    assert torch.equal(scaled, scaled.round())
    assert float(scaled.abs().max()) > 1000
    table_AD.square().sum().backward()
    first = encoder.blocks[0].get_parameter("attention.qkv.weight")
    assert first.grad is not None
    assert float(first.grad.norm()) > 1e-3


def test_table_depends_on_theta_alone(encoder: Encoder, samples: Samples, theta: Tensor) -> None:
    """It is what the transformer says of any state at all once every balance is masked."""
    table_AD = encoder.table()
    for balances in (samples.before[:1], samples.after[3:4]):
        blank_11T = torch.from_numpy(tokens(balances, masked=np.ones_like(balances, dtype=np.bool_))).unsqueeze(1)
        vectors_AD = encoder.account_vectors(encoder.hidden(blank_11T))[0, 0]
        assert torch.equal(round_fixed_point(vectors_AD), table_AD)
    set_flat(encoder, theta + 0.01)
    assert not torch.equal(encoder.table(), table_AD)


def test_table_tells_accounts_apart(encoder: Encoder) -> None:
    table_AD = encoder.table().detach()
    distance_AA = torch.cdist(table_AD, table_AD) + torch.eye(len(table_AD))
    assert float(distance_AA.min()) > 1e-2


def test_table_of_the_mean_readout_is_the_account_embedding(tiny: Preset, theta: Tensor) -> None:
    encoder = Encoder(tiny, readout="mean")
    set_flat(encoder, theta)
    assert torch.equal(encoder.table(), encoder.embedding.weight[1:9])


@torch.no_grad()
def test_centring_moves_the_origin_and_neither_transfers_nor_residuals(encoder: Encoder, batch: StateBatch) -> None:
    tables, residuals = [], []
    for _ in range(2):
        tables.append(encoder.table())
        hidden_B2TD = encoder.hidden(batch.tokens_B3T)[:, :2]
        residuals.append(encoder.residual(hidden_B2TD, batch.weights_B2A, table=tables[-1]))
        centre(encoder)
    assert float(tables[0].mean(dim=0).abs().max()) > 0.1
    assert float(tables[1].mean(dim=0).abs().max()) <= 2.0**-16
    steps = [table_AD[1:] - table_AD[:1] for table_AD in tables]
    torch.testing.assert_close(steps[1], steps[0], atol=2.0**-15, rtol=0)
    torch.testing.assert_close(residuals[1], residuals[0], atol=2.0**-14, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_a_centred_encoder_keeps_its_bits(tiny: Preset, seed: int) -> None:
    encoder = Encoder(tiny)
    encoder.reset_parameters(torch_stream(seed, "centred"))
    centre(encoder)
    centred_P = get_flat(encoder)
    centre(encoder)
    assert torch.equal(get_flat(encoder), centred_P)


def test_centring_leaves_the_mean_readout_alone(tiny: Preset, theta: Tensor) -> None:
    encoder = Encoder(tiny, readout="mean")
    set_flat(encoder, theta)
    centre(encoder)
    assert torch.equal(get_flat(encoder), theta)


# --- Read-outs --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_residual_is_live_minus_affine(encoder: Encoder, batch: StateBatch) -> None:
    hidden_B3TD, table_AD = encoder.hidden(batch.tokens_B3T), encoder.table()
    residual_B2D = encoder.residual(hidden_B3TD[:, :2], batch.weights_B2A, table=table_AD)
    weight_DD, bias_D = encoder.out.weight.double().numpy(), encoder.out.bias.double().numpy()
    for row in range(batch.num_samples):
        for state in range(2):
            live_D, affine_D = np.zeros(8), np.zeros(8)
            for account in range(8):
                share = float(batch.weights_B2A[row, state, account])
                position = 1 + 2 * account
                live_D += share * (weight_DD @ hidden_B3TD[row, state, position].double().numpy() + bias_D)
                affine_D += share * table_AD[account].double().numpy()
            np.testing.assert_allclose(residual_B2D[row, state].numpy(), live_D - affine_D, atol=1e-5)


@torch.no_grad()
def test_residual_takes_one_table_for_all_or_one_for_each(encoder: Encoder, batch: StateBatch) -> None:
    hidden_B2TD, table_AD = encoder.hidden(batch.tokens_B3T)[:, :2], encoder.table()
    one = encoder.residual(hidden_B2TD, batch.weights_B2A, table=table_AD)
    each = encoder.residual(hidden_B2TD, batch.weights_B2A, table=table_AD.expand(batch.num_samples, -1, -1))
    torch.testing.assert_close(each, one)


@torch.no_grad()
def test_residual_of_the_mean_readout(tiny: Preset, theta: Tensor, batch: StateBatch) -> None:
    encoder = Encoder(tiny, readout="mean")
    set_flat(encoder, theta)
    hidden_BGTD = encoder.hidden(batch.tokens_B3T)[:, :2]
    found = encoder.residual(hidden_BGTD, batch.weights_B2A, table=encoder.table())
    mean_D = hidden_BGTD[4, 1].double().numpy().mean(axis=0)
    live_D = encoder.out.weight.double().numpy() @ mean_D + encoder.out.bias.double().numpy()
    affine_D = batch.weights_B2A[4, 1].double().numpy() @ encoder.embedding.weight[1:9].double().numpy()
    np.testing.assert_allclose(found[4, 1].numpy(), live_D - affine_D, atol=1e-5)


@torch.no_grad()
def test_logits_are_read_at_the_balance_tokens(encoder: Encoder, batch: StateBatch) -> None:
    hidden_BTD = encoder.hidden(batch.tokens_B3T)[:, 2]
    logits_BAK = encoder.balance_logits(hidden_BTD)
    assert logits_BAK.shape == (batch.num_samples, 8, 256)
    expected_K = encoder.balance_head.weight @ hidden_BTD[5, 2 + 2 * 3] + encoder.balance_head.bias
    torch.testing.assert_close(logits_BAK[5, 3], expected_K)


@torch.no_grad()
def test_hidden_states_are_normalised_and_know_their_position(encoder: Encoder) -> None:
    same_11T = torch.zeros(1, 1, 17, dtype=torch.int64)
    hidden_TD = encoder.hidden(same_11T)[0, 0]
    assert float((hidden_TD[3] - hidden_TD[4]).abs().max()) > 1e-2
    centred_TD = (hidden_TD - encoder.norm.bias) / encoder.norm.weight
    torch.testing.assert_close(centred_TD.mean(dim=1), torch.zeros(17), atol=1e-5, rtol=0)


def test_checkpointing_changes_memory_and_nothing_else(
    *, encoder: Encoder, tiny: Preset, theta: Tensor, batch: StateBatch
) -> None:
    saving = Encoder(tiny, checkpoint_activations=True)
    set_flat(saving, theta)
    for each in (encoder, saving):
        each.hidden(batch.tokens_B3T).square().sum().backward()
    assert torch.equal(encoder.hidden(batch.tokens_B3T), saving.hidden(batch.tokens_B3T))
    for ours, theirs in zip(encoder.parameters(), saving.parameters(), strict=True):
        if ours.grad is not None:
            assert theirs.grad is not None
            torch.testing.assert_close(theirs.grad, ours.grad)


def test_unknown_readout_is_refused(tiny: Preset) -> None:
    message = "model.readout is 'max', expected one of: balance, mean (did you mean 'mean'?)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Encoder(tiny, readout="max")


# --- Parameters -------------------------------------------------------------------------------------------------------


def test_flat_vector_goes_round_in_the_order_of_parameters(encoder: Encoder, theta: Tensor) -> None:
    vector = torch.arange(encoder.num_parameters, dtype=torch.float32)
    set_flat(encoder, vector)
    assert torch.equal(get_flat(encoder), vector)
    start = 0
    for parameter in encoder.parameters():
        assert torch.equal(parameter.reshape(-1), vector[start : start + parameter.numel()])
        start += parameter.numel()
    assert start == encoder.num_parameters == len(theta)


def test_flat_vector_is_a_copy(encoder: Encoder, theta: Tensor) -> None:
    taken = get_flat(encoder)
    with torch.no_grad():
        encoder.out.bias.add_(1)
    assert torch.equal(taken, theta)
    set_flat(encoder, taken)
    with torch.no_grad():
        encoder.out.bias.add_(1)
    assert torch.equal(taken, theta)


@pytest.mark.parametrize("change", [-1, 1])
def test_vector_of_another_length_is_refused_and_nothing_is_copied(
    encoder: Encoder, theta: Tensor, change: int
) -> None:
    expected = encoder.num_parameters
    message = f"weights have shape ({expected + change},), expected ({expected},): another preset?"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        set_flat(encoder, torch.zeros(expected + change))
    assert torch.equal(get_flat(encoder), theta)


def test_reset_draws_every_parameter_from_the_generator_alone(tiny: Preset) -> None:
    drawn = []
    for seed in (4, 4, 5):
        encoder = Encoder(tiny)
        encoder.reset_parameters(torch.Generator().manual_seed(seed))
        drawn.append(get_flat(encoder))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@torch.no_grad()
def test_reset_scales(tiny: Preset) -> None:
    encoder = Encoder(tiny)
    set_flat(encoder, torch.full((encoder.num_parameters,), 9.0))
    encoder.reset_parameters(torch.Generator().manual_seed(6))
    for module in encoder.modules():
        if isinstance(module, Linear):
            limit = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.9 * limit < float(module.weight.abs().max()) <= limit
            assert float(module.bias.abs().max()) == 0
        elif isinstance(module, LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, Embedding | Positions):
            assert module.weight.std().item() == pytest.approx(0.3, rel=0.2)
