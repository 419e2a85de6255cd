"""Both engines give the same clipped sums at the shapes of every preset, as one sample at a time does.

Shapes: B samples, G states, T tokens, A accounts, D width, P parameters.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from nerv_fl.config import DP_ENGINES, PRESET_NAMES, PrivacyConfig, TrainingConfig
from nerv_fl.errors import ConfigError
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import Preset, get_preset
from nerv_fl.models.trainable import train_only
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.privacy.grad_sample import ENGINES, Engine, opacus_engine
from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear, Positions, trained_parameters
from nerv_fl.privacy.recurrent import LSTM, RecentAverage

TOLERANCE = 1e-5
FLOOR = 0.01
LARGE = ("tee", "base", "whitepaper")
"""Encoders of which the fast tests take one layer and 16 accounts; widths and heads are the presets'."""

Losses = Callable[[nn.Module, int, int], Tensor]
"""From a model, the losses of samples `start` to `stop`, (B,)."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found_P: Tensor, expected_P: Tensor) -> float:
    return float((found_P - expected_P).norm() / expected_P.norm())


def clipped_sum(
    model: nn.Module, engine: Engine, losses: Losses, *, num_samples: int, micro_batch: int = 10**6
) -> Tensor:
    """Return what Opacus' optimizer has summed when noise would be added, (P,)."""
    sgd = optim.SGD(trained_parameters(model), lr=1.0)
    private = private_optimizer(model, sgd, privacy=PrivacyConfig(), expected_batch=1)
    for start in range(0, num_samples, micro_batch):
        with engine():
            losses(model, start, min(start + micro_batch, num_samples)).sum().backward()
        private.clip_and_accumulate()
        for parameter in model.parameters():
            parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
    return torch.cat([parameter.summed_grad.reshape(-1) for parameter in trained_parameters(model)])  # type: ignore[attr-defined]


def clipped_one_at_a_time(model: nn.Module, losses: Losses, *, num_samples: int) -> Tensor:
    """Return the same by ordinary autograd, with nothing of Opacus."""
    parameters, total = trained_parameters(model), torch.zeros(())
    for number in range(num_samples):
        parts = torch.autograd.grad(losses(model, number, number + 1).sum(), parameters)
        gradient_P = torch.cat([part.reshape(-1) for part in parts])
        total = total + gradient_P * min(1.0, 1.0 / (float(gradient_P.norm()) + 1e-6))
    return total


# --- Each layer type at each preset's shapes --------------------------------------------------------------------------


@cache
def layer_shapes() -> tuple[tuple[type[nn.Module], tuple[int, ...]], ...]:
    """Return every layer type with parameters, at each shape it has in any preset's encoder."""
    found = set()
    for name in PRESET_NAMES:
        with torch.device("meta"):
            encoder = Encoder(get_preset(name))
        for module in encoder.modules():
            if next(module.parameters(recurse=False), None) is not None:
                found.add((type(module), tuple(module.weight.shape)))  # type: ignore[arg-type]
    return tuple(sorted(found, key=str))


def make_layer(kind: type[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    layer: nn.Module
    if kind is Linear:
        layer = Linear(shape[1], shape[0])
    elif kind is LayerNorm:
        layer = LayerNorm(shape[0])
    elif kind is Embedding:
        layer = Embedding(shape[0], shape[1])
    else:
        layer = Positions(*shape, std=0.3)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + number))
    return layer


def layer_inputs(kind: type[nn.Module], shape: tuple[int, ...], *, num_samples: int, num_rows: int) -> Tensor:
    if kind is Embedding:
        return torch.randint(shape[0], (num_samples, 2, num_rows), generator=torch.Generator().manual_seed(3))
    rows = shape[0] if kind is Positions else num_rows
    return draw(num_samples, 2, rows, shape[-1], seed=4)


def test_layer_types_are_those_that_are_made_here() -> None:
    assert {kind for kind, _ in layer_shapes()} == {Linear, LayerNorm, Embedding, Positions}
    assert {(Linear, (2048, 512)), (Embedding, (1281, 512)), (Positions, (2049, 512))} <= set(layer_shapes())


@settings(max_examples=25, deadline=None)
@given(data=st.data(), num_samples=st.integers(1, 4), num_rows=st.integers(1, 9), scale=st.floats(-4, 1))
def test_clipped_sums_of_a_layer_are_equal(
    *, data: st.DataObject, num_samples: int, num_rows: int, scale: float
) -> None:
    """Scales from 1e-4, where nobody is clipped, to 10, where all are; samples differ by a factor of 10 each."""
    kind, shape = data.draw(st.sampled_from(layer_shapes()))
    layer = make_layer(kind, shape)
    inputs = layer_inputs(kind, shape, num_samples=num_samples, num_rows=num_rows)

    def losses(model: nn.Module, start: int, stop: int) -> Tensor:
        output = model(inputs[start:stop])
        weights = draw(*output.shape[1:], seed=9) / output[0].numel()
        sizes = 10.0 ** (scale - torch.arange(start, stop))
        losses_B: Tensor = (output * weights).square().flatten(1).sum(dim=1) * sizes
        return losses_B

    expected_P = clipped_one_at_a_time(layer, losses, num_samples=num_samples)
    for name in DP_ENGINES:
        found_P = clipped_sum(layer, ENGINES[name](layer), losses, num_samples=num_samples)
        assert relative_error(found_P, expected_P) <= TOLERANCE, name


@pytest.mark.parametrize("name", DP_ENGINES)
@pytest.mark.parametrize(("kind", "trained"), [("lstm", "*"), ("lstm", "bias_* weight_hh_l1"), ("average", "*")])
def test_clipped_sums_of_layers_over_time_are_equal(name: str, kind: str, trained: str) -> None:
    layer: nn.Module = LSTM(3, 5, num_layers=2) if kind == "lstm" else RecentAverage(4, 3)
    train_only(layer, trained)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=100 + number))
    inputs = draw(6, 8, 3)

    def losses(model: nn.Module, start: int, stop: int) -> Tensor:
        output = model(inputs[start:stop])
        output = output[0] if isinstance(output, tuple) else output
        losses_B: Tensor = (output * draw(*output.shape[1:], seed=9)).square().flatten(1).sum(dim=1)
        return losses_B

    expected_P = clipped_one_at_a_time(layer, losses, num_samples=6)
    found_P = clipped_sum(layer, ENGINES[name](layer), losses, num_samples=6, micro_batch=4)
    assert relative_error(found_P, expected_P) <= TOLERANCE


# --- Whole encoders ---------------------------------------------------------------------------------------------------


def draw_batch(preset: Preset, *, num_samples: int) -> StateBatch:
    """Return samples with random tokens, weights and masks; no ledger is needed."""
    generator = torch.Generator().manual_seed(11)
    accounts = preset.num_accounts
    tokens_B3T = torch.zeros(num_samples, 3, preset.num_tokens, dtype=torch.int64)
    tokens_B3T[..., 1::2] = 1 + torch.arange(accounts)
    tokens_B3T[..., 2::2] = torch.randint(
        1 + accounts, preset.vocabulary, (num_samples, 3, accounts), generator=generator
    )
    weights_B2A = torch.rand(num_samples, 2, accounts, generator=generator)
    masked_BA = torch.rand(num_samples, accounts, generator=generator) < 0.5
    masked_BA[:, 0] = True
    return StateBatch(
        tokens_B3T=tokens_B3T,
        weights_B2A=weights_B2A / weights_B2A.sum(dim=2, keepdim=True),
        targets_BA=torch.randint(256, (num_samples, accounts), generator=generator),
        masked_BA=masked_BA,
    )


def make_encoder(preset: Preset, *, checkpoint_activations: bool = False) -> Encoder:
    encoder = Encoder(preset, checkpoint_activations=checkpoint_activations)
    encoder.reset_parameters(torch.Generator().manual_seed(1))
    return encoder


def losses_on(batch: StateBatch) -> Losses:
    def losses(model: nn.Module, start: int, stop: int) -> Tensor:
        assert isinstance(model, Encoder)
        with torch.no_grad():
            table_AD = model.table()
        return sample_losses(model, batch.part(start, stop), table_AD=table_AD, movement_floor=FLOOR).loss_B

    return losses


def check_encoder(preset: Preset, *, num_samples: int) -> None:
    losses = losses_on(draw_batch(preset, num_samples=num_samples))
    encoder, checkpointed = make_encoder(preset), make_encoder(preset, checkpoint_activations=True)
    expected_P = clipped_sum(encoder, ENGINES["opacus"](encoder), losses, num_samples=num_samples, micro_batch=1)
    for model in (make_encoder(preset), checkpointed):
        found_P = clipped_sum(model, ENGINES["layers"](model), losses, num_samples=num_samples, micro_batch=1)
        assert relative_error(found_P, expected_P) <= TOLERANCE


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_clipped_sums_of_an_encoder_are_equal(name: str) -> None:
    """With micro-batches of 1, and with blocks computed again where the engine allows it."""
    preset = get_preset(name)
    check_encoder(replace(preset, num_layers=1, num_accounts=16) if name in LARGE else preset, num_samples=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_clipped_sums_of_a_full_encoder_are_equal(name: str) -> None:
    check_encoder(get_preset(name), num_samples=1)


@pytest.mark.parametrize("trained", ["positions.* *.bias", "embedding.* out.weight blocks.1.*"])
def test_frozen_parameters_count_for_neither_engine(trained: str) -> None:
    preset = get_preset("quickstart")
    losses = losses_on(draw_batch(preset, num_samples=3))
    encoders = [make_encoder(preset) for _ in DP_ENGINES]
    for encoder in encoders:
        train_only(encoder, trained)
    expected_P = clipped_one_at_a_time(encoders[0], losses, num_samples=3)
    for name, encoder in zip(DP_ENGINES, encoders, strict=True):
        found_P = clipped_sum(encoder, ENGINES[name](encoder), losses, num_samples=3, micro_batch=2)
        assert relative_error(found_P, expected_P) <= TOLERANCE


def test_functorch_agrees() -> None:
    preset = get_preset("quickstart")
    losses = losses_on(draw_batch(preset, num_samples=3))
    ours, theirs = make_encoder(preset), make_encoder(preset)
    found_P = clipped_sum(ours, ENGINES["layers"](ours), losses, num_samples=3)
    engine = opacus_engine(theirs, force_functorch=True)
    assert relative_error(found_P, clipped_sum(theirs, engine, losses, num_samples=3)) <= TOLERANCE


# --- An engine's context ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DP_ENGINES)
def test_outside_of_its_context_an_engine_does_nothing(name: str) -> None:
    layer = make_layer(Linear, (3, 5))
    engine = ENGINES[name](layer)
    layer(draw(4, 5)).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert all(vars(parameter).get("grad_sample") is None for parameter in layer.parameters())
    with engine():
        pass
    assert "activations" not in vars(layer)


@pytest.mark.parametrize("name", DP_ENGINES)
def test_a_pass_that_fails_leaves_nothing_behind(name: str) -> None:
    layer, fresh = make_layer(Linear, (3, 5)), make_layer(Linear, (3, 5))

    def losses(model: nn.Module, start: int, stop: int) -> Tensor:
        output: Tensor = model(draw(4, 5)[start:stop])
        return output.square().sum(dim=1)

    engine = ENGINES[name](layer)
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad"), engine():
        (losses(layer, 0, 3).detach() + losses(layer, 0, 3).detach()).sum().backward()

    assert not {"activations", "max_batch_len"} & vars(layer).keys()
    expected_P = clipped_sum(fresh, ENGINES[name](fresh), losses, num_samples=4)
    assert torch.equal(clipped_sum(layer, engine, losses, num_samples=4), expected_P)


def test_every_engine_can_be_asked_for() -> None:
    assert tuple(ENGINES) == DP_ENGINES


def test_hooks_are_refused_where_blocks_are_computed_again() -> None:
    message = (
        r"^training\.dp_engine is 'opacus', expected 'layers' with training\.checkpointing: "
        r"hooks break where blocks are computed again$"
    )
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(dp_engine="opacus", checkpointing=True)
