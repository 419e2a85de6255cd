"""Attention against a loop over heads and tokens in float64; states and samples do not see each other."""

import math

import pytest
import torch
from torch import Tensor

from nerv_fl.models.attention import Attention, Block
from nerv_fl.models.presets import Preset

NUM_SAMPLES, NUM_STATES, NUM_TOKENS, WIDTH, NUM_HEADS = 3, 2, 5, 8, 2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(name="x_BGTD")
def fixture_x() -> Tensor:
    return draw(NUM_SAMPLES, NUM_STATES, NUM_TOKENS, WIDTH)


def redraw(module: torch.nn.Module) -> None:
    module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + number))


@pytest.fixture
def attention() -> Attention:
    module = Attention(WIDTH, num_heads=NUM_HEADS)
    redraw(module)
    return module


def naive_attention(attention: Attention, x_TD: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(D / H)) v of one state: head by head, token by token."""
    size = WIDTH // NUM_HEADS
    q_TD, k_TD, v_TD = (x_TD @ attention.qkv.weight.T + attention.qkv.bias).split(WIDTH, dim=1)
    mixed_TD = torch.zeros_like(x_TD)
    for head in range(NUM_HEADS):
        of_head = slice(head * size, (head + 1) * size)
        for token in range(NUM_TOKENS):
            scores = [
                float(q_TD[token, of_head] @ k_TD[other, of_head]) / math.sqrt(size) for other in range(NUM_TOKENS)
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            for other, weight in enumerate(weights):
                mixed_TD[token, of_head] += weight / sum(weights) * v_TD[other, of_head]
    return mixed_TD @ attention.out.weight.T + attention.out.bias


def naive_norm(x_TD: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred_TD = x_TD - x_TD.mean(dim=1, keepdim=True)
    scale_T1 = (centred_TD.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return centred_TD / scale_T1 * norm.weight + norm.bias


def naive_gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@torch.no_grad()
def test_attention_equals_a_loop_over_heads_and_tokens(attention: Attention, x_BGTD: Tensor) -> None:
    output_BGTD = attention(x_BGTD)
    for sample in range(NUM_SAMPLES):
        for state in range(NUM_STATES):
            expected_TD = naive_attention(attention, x_BGTD[sample, state])
            torch.testing.assert_close(output_BGTD[sample, state], expected_TD, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_block_equals_its_equation(tiny: Preset, x_BGTD: Tensor) -> None:
    block = Block(tiny)
    redraw(block)
    x_TD = x_BGTD[0, 0]
    middle_TD = x_TD + naive_attention(block.attention, naive_norm(x_TD, block.attention_norm))
    fed_TF = naive_norm(middle_TD, block.feed_norm) @ block.feed_in.weight.T + block.feed_in.bias
    expected_TD = middle_TD + naive_gelu(fed_TF) @ block.feed_out.weight.T + block.feed_out.bias
    torch.testing.assert_close(block(x_BGTD)[0, 0], expected_TD, rtol=1e-10, atol=1e-10)


def test_states_of_a_sample_do_not_see_each_other(attention: Attention, x_BGTD: Tensor) -> None:
    inputs = x_BGTD.clone().requires_grad_()
    attention(inputs)[:, 0].square().sum().backward()
    assert inputs.grad is not None
    assert bool((inputs.grad[:, 1] == 0).all())
    assert bool((inputs.grad[:, 0] != 0).any(dim=-1).all())


def test_samples_do_not_see_each_other(attention: Attention, x_BGTD: Tensor) -> None:
    inputs = x_BGTD.clone().requires_grad_()
    attention(inputs)[1].square().sum().backward()
    assert inputs.grad is not None
    assert bool((inputs.grad[[0, 2]] == 0).all())


@torch.no_grad()
def test_permuted_samples_give_permuted_outputs(attention: Attention, x_BGTD: Tensor) -> None:
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(attention(x_BGTD[order]), attention(x_BGTD)[order], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_attention_alone_does_not_know_the_order_of_tokens(attention: Attention, x_BGTD: Tensor) -> None:
    order = torch.tensor([4, 2, 0, 1, 3])
    permuted = attention(x_BGTD[:, :, order])
    torch.testing.assert_close(permuted, attention(x_BGTD)[:, :, order], rtol=1e-10, atol=1e-10)
