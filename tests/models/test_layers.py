"""Per-sample gradients against a loop that differentiates one sample at a time.

Shapes: B samples, G states, T tokens, I inputs, D width, P parameters.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.losses import SampleLosses, sample_losses, sample_losses_through_table
from nerv_fl.models.presets import Preset
from nerv_fl.privacy import layers
from nerv_fl.privacy.layers import clear_grad_samples, per_sample_gradients

TOLERANCE = 1e-5
FLOOR = 0.01
Losses = Callable[[Encoder, StateBatch], SampleLosses]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def redraw(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + number))
    return layer


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative L2 error of any row."""
    difference = (found - expected).flatten(1).norm(dim=1)
    return float((difference / expected.flatten(1).norm(dim=1).clamp_min(1e-12)).max())


def loss_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A loss whose gradient differs from place to place and from sample to sample."""
    output: Tensor = layer(inputs)
    return (output * draw(*output.shape[1:], seed=9)).square().sum()


def one_at_a_time(layer: nn.Module, inputs: Tensor) -> list[Tensor]:
    rows = [
        torch.autograd.grad(loss_of(layer, inputs[row : row + 1]), list(layer.parameters()))
        for row in range(len(inputs))
    ]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def token_ids(*shape: int) -> Tensor:
    """Few different tokens, so that each sample repeats some."""
    return torch.randint(5, shape, generator=torch.Generator().manual_seed(3))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear, rows": (lambda: layers.Linear(5, 3), draw(4, 5)),
    "linear, tokens": (lambda: layers.Linear(5, 3), draw(4, 6, 5)),
    "linear, states of tokens": (lambda: layers.Linear(5, 3), draw(4, 2, 6, 5)),
    "linear, no bias": (lambda: layers.Linear(5, 3, bias=False), draw(4, 2, 6, 5)),
    "norm, rows": (lambda: layers.LayerNorm(5), draw(4, 5)),
    "norm, states of tokens": (lambda: layers.LayerNorm(5), draw(4, 2, 6, 5)),
    "embedding": (lambda: layers.Embedding(7, 5), token_ids(4, 9)),
    "embedding, states of tokens": (lambda: layers.Embedding(7, 5), token_ids(4, 2, 9)),
    "positions": (lambda: layers.Positions(6, 5, std=0.3), draw(4, 2, 6, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_loop(name: str) -> None:
    make, inputs = LAYERS[name]
    layer = redraw(make())
    expected = one_at_a_time(layer, inputs)
    with per_sample_gradients(layer):
        loss_of(layer, inputs).backward()
    for parameter, rows in zip(layer.parameters(), expected, strict=True):
        assert relative_error(vars(parameter)["grad_sample"], rows) <= TOLERANCE
        assert parameter.grad is None


@pytest.mark.parametrize("name", [name for name in LAYERS if "embedding" not in name])
def test_input_gradient_and_output_are_the_plain_layer(name: str) -> None:
    make, inputs = LAYERS[name]
    layer = redraw(make())
    plain, special = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    loss_of(layer, plain).backward()
    with per_sample_gradients(layer):
        torch.testing.assert_close(layer(inputs), layer(inputs.clone()))
        loss_of(layer, special).backward()
    assert plain.grad is not None
    assert special.grad is not None
    torch.testing.assert_close(special.grad, plain.grad)


@pytest.mark.parametrize("name", LAYERS)
def test_output_has_the_same_bits_in_either_mode(name: str) -> None:
    make, inputs = LAYERS[name]
    layer = redraw(make())
    plain = layer(inputs)
    with per_sample_gradients(layer):
        assert torch.equal(layer(inputs), plain)


def test_layer_used_twice_sums_both_uses() -> None:
    layer = redraw(layers.Linear(5, 5))
    twice = nn.Sequential(layer, layer)
    inputs = draw(4, 6, 5)
    expected = one_at_a_time(twice, inputs)
    with per_sample_gradients(twice):
        loss_of(twice, inputs).backward()
    for parameter, rows in zip(twice.parameters(), expected, strict=True):
        assert relative_error(vars(parameter)["grad_sample"], rows) <= TOLERANCE


def test_ordinary_mode_writes_the_ordinary_gradient() -> None:
    layer = redraw(layers.Linear(5, 3))
    loss_of(layer, draw(4, 5)).backward()
    assert all(parameter.grad is not None and "grad_sample" not in vars(parameter) for parameter in layer.parameters())


def test_mode_ends_with_its_context_even_after_an_error() -> None:
    layer = layers.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), per_sample_gradients(layer):
        layer(draw(4, 6))
    modes = [layer.per_sample]
    with per_sample_gradients(layer):
        modes.append(layer.per_sample)
    assert [*modes, layer.per_sample] == [False, True, False]


def test_cleared_gradients_do_not_add_to_the_next() -> None:
    layer = redraw(layers.Linear(5, 3))
    for seed in (0, 1):
        clear_grad_samples(layer)
        with per_sample_gradients(layer):
            loss_of(layer, draw(4, 5, seed=seed)).backward()
    for parameter, rows in zip(layer.parameters(), one_at_a_time(layer, draw(4, 5, seed=1)), strict=True):
        assert relative_error(vars(parameter)["grad_sample"], rows) <= TOLERANCE


# --- The whole encoder ------------------------------------------------------------------------------------------------


def detached_table(encoder: Encoder, batch: StateBatch) -> SampleLosses:
    return sample_losses(encoder, batch, table_AD=encoder.table().detach(), movement_floor=FLOOR)


def through_table(encoder: Encoder, batch: StateBatch) -> SampleLosses:
    return sample_losses_through_table(encoder, batch, movement_floor=FLOOR)


def loop_gradients(encoder: Encoder, batch: StateBatch, losses: Losses) -> Tensor:
    """Return each sample's gradient, (B, P), by ordinary autograd on that sample alone."""
    rows = []
    for row in range(batch.num_samples):
        loss = losses(encoder, batch.part(row, row + 1)).loss_B.sum()
        gradient = torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in gradient]))
    return torch.stack(rows)


def taken_gradients(model: nn.Module, num_samples: int) -> Tensor:
    parameters = list(model.parameters())
    assert all(parameter.grad is None for parameter in parameters)
    return torch.cat([vars(item)["grad_sample"].reshape(num_samples, -1) for item in parameters], dim=1)


def fast_gradients(encoder: Encoder, batch: StateBatch, losses: Losses) -> Tensor:
    clear_grad_samples(encoder)
    with per_sample_gradients(encoder):
        losses(encoder, batch).loss_B.sum().backward()
    return taken_gradients(encoder, batch.num_samples)


@pytest.mark.parametrize("losses", [detached_table, through_table])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_encoder_equals_the_loop(
    *,
    tiny: Preset,
    theta: Tensor,
    batch: StateBatch,
    readout: str,
    checkpoint_activations: bool,
    losses: Losses,
) -> None:
    encoder = Encoder(tiny, readout=readout, checkpoint_activations=checkpoint_activations)
    set_flat(encoder, theta)
    expected = loop_gradients(encoder, batch, losses)
    assert relative_error(fast_gradients(encoder, batch, losses), expected) <= TOLERANCE


@pytest.mark.parametrize("parameter_name", ["embedding.weight", "out.weight", "blocks.0.attention.qkv.bias"])
def test_encoder_equals_the_loop_in_each_parameter(encoder: Encoder, batch: StateBatch, parameter_name: str) -> None:
    """A small tensor's error would drown in the whole vector's norm."""
    parameter = encoder.get_parameter(parameter_name)
    rows = [
        torch.autograd.grad(detached_table(encoder, batch.part(row, row + 1)).loss_B.sum(), parameter)[0]
        for row in range(batch.num_samples)
    ]
    fast_gradients(encoder, batch, detached_table)
    assert relative_error(vars(parameter)["grad_sample"], torch.stack(rows)) <= TOLERANCE


def test_micro_batches_give_the_same_gradients(encoder: Encoder, batch: StateBatch) -> None:
    whole = fast_gradients(encoder, batch, detached_table)
    parts = [fast_gradients(encoder, batch.part(start, start + 5), detached_table) for start in (0, 5, 10)]
    assert relative_error(torch.cat(parts), whole) <= TOLERANCE


def test_a_sample_without_a_finite_gradient_counts_as_zero() -> None:
    """Clipping cannot bound it: an infinite norm gives the factor 0, and 0 x inf is not a number."""
    layer = redraw(layers.Linear(5, 3))
    x = draw(4, 2, 5)
    x[1, 0, 0] = torch.inf
    with per_sample_gradients(layer):
        layer(x).sum().backward()
    before = [parameter.grad_sample.clone() for parameter in layer.parameters()]  # type: ignore[attr-defined]

    layers.drop_non_finite(layer)

    for parameter, earlier in zip(layer.parameters(), before, strict=True):
        grad_sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
        assert not grad_sample[1].any()
        assert torch.equal(grad_sample[[0, 2, 3]], earlier[[0, 2, 3]])


def test_finite_gradients_stay_even_where_their_sum_is_not() -> None:
    layer = redraw(layers.Linear(2, 1))
    with per_sample_gradients(layer):
        layer(torch.full((3, 1, 2), 3e38)).sum().backward()

    layers.drop_non_finite(layer)

    assert bool((vars(layer.weight)["grad_sample"] == 3e38).all())
