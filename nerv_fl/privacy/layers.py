"""Layers that can form per-sample gradients and nothing else.

In ordinary mode each layer is the plain torch layer. Inside `per_sample_gradients` its backward pass returns the
gradient of its input and *writes* ``parameter.grad_sample`` (B, *parameter.shape) in place of ``parameter.grad``: the
summed gradient, which DP-SGD would throw away, is never formed. Opacus' `DPOptimizer` reads `grad_sample` from there.

Dimension 0 of every input is the sample, that is the unit of privacy; all other leading dimensions are summed over.

Source: Goodfellow, "Efficient per-example gradient computations", 2015 (the outer products of a linear layer).

Shapes: B samples, N rows of a sample (tokens, or states x tokens), I inputs, O outputs, D width, T tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class PerSampleLayer(nn.Module):
    """A layer that knows which mode it is in."""

    per_sample = False


@contextmanager
def per_sample_gradients(model: nn.Module) -> Iterator[None]:
    """Have every layer of `model` write `grad_sample` instead of `grad` until the context ends."""
    layers = [layer for layer in model.modules() if isinstance(layer, PerSampleLayer)]
    for layer in layers:
        layer.per_sample = True
    try:
        yield
    finally:
        for layer in layers:
            layer.per_sample = False


def clear_grad_samples(model: nn.Module) -> None:
    """Forget the per-sample gradients of every parameter."""
    for parameter in model.parameters():
        parameter.grad_sample = None  # type: ignore[attr-defined]


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that gradients are formed for; the others are frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def empty_grad_samples(model: nn.Module) -> None:
    """Give every trained parameter the per-sample gradients of a batch without samples."""
    for parameter in trained_parameters(model):
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]


def average_units(model: nn.Module, size: int) -> None:
    """Replace the gradients of every `size` samples that follow each other by their mean: they are one unit."""
    if size > 1:
        for parameter in trained_parameters(model):
            grad_sample = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample = grad_sample.unflatten(0, (-1, size)).mean(dim=1)  # type: ignore[attr-defined]


def drop_non_finite(model: nn.Module) -> None:
    """Make every sample's gradient zero if any number of it is not finite: no clipping bounds such a gradient."""
    gradients = [parameter.grad_sample for parameter in trained_parameters(model)]  # type: ignore[attr-defined]
    # A sum holds whatever is not finite, at a tenth of the time of looking at each number.
    if all(bool(gradient.sum().isfinite()) for gradient in gradients):
        return
    finite_B = torch.stack([gradient.flatten(start_dim=1).isfinite().all(dim=1) for gradient in gradients]).all(dim=0)
    for gradient in gradients:
        gradient[~finite_B] = 0.0


class Linear(nn.Linear, PerSampleLayer):
    """``y = x W^T + b`` over the last dimension, shape (B, ..., I) -> (B, ..., O)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        if self.per_sample and torch.is_grad_enabled():
            output: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return output
        return super().forward(input)


class LayerNorm(nn.LayerNorm, PerSampleLayer):
    """Layer normalisation over the last dimension, shape (B, ..., D); without parameters, or without bias, too."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        if self.per_sample and torch.is_grad_enabled() and self.weight is not None:
            output: Tensor = _LayerNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
            return output
        return super().forward(input)


class Embedding(nn.Embedding, PerSampleLayer):
    """Token embedding, int64 (B, ...) -> (B, ..., D); the row of `padding_idx` gets no gradient, as in torch."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        if self.per_sample and torch.is_grad_enabled():
            output: Tensor = _Embedding.apply(input, self.weight, self.padding_idx)  # type: ignore[no-untyped-call]
            return output
        return super().forward(input)


class Positions(PerSampleLayer):
    """Learned positions, a module of their own: (B, G, T, D) -> the same, ``x + P`` for each of the G states.

    Args:
        num_tokens: T.
        width: D.
        std: Standard deviation of the initial positions.
    """

    def __init__(self, num_tokens: int, width: int, *, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_tokens, width))
        self.std = std

    def forward(self, input: Tensor) -> Tensor:
        """Add the positions."""
        if self.per_sample and torch.is_grad_enabled():
            output: Tensor = _Positions.apply(input, self.weight)  # type: ignore[no-untyped-call]
            return output
        return input + self.weight


def write_grad_sample(parameter: nn.Parameter | Tensor, grad_sample: Tensor) -> None:
    """Add per-sample gradients (B, *parameter.shape) to those that a parameter already holds; frozen ones have none."""
    if parameter.requires_grad:
        earlier = getattr(parameter, "grad_sample", None)
        parameter.grad_sample = grad_sample if earlier is None else earlier + grad_sample  # type: ignore[attr-defined]


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.parameters = weight, bias
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        weight, bias = ctx.parameters
        grad_BNO = grad_outputs[0].reshape(x.shape[0], -1, weight.shape[0])
        x_BNI = x.reshape(x.shape[0], -1, weight.shape[1])
        if weight.requires_grad:
            write_grad_sample(weight, torch.bmm(grad_BNO.transpose(1, 2), x_BNI))
        if bias is not None and bias.requires_grad:
            write_grad_sample(bias, grad_BNO.sum(dim=1))
        return grad_outputs[0] @ weight, None, None


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        output, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd)
        ctx.parameters = weight, bias
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean, rstd = ctx.saved_tensors
        weight, bias = ctx.parameters
        grad = grad_outputs[0].contiguous()
        shape_BND = (x.shape[0], -1, x.shape[-1])
        normalised_BND = ((x - mean) * rstd).reshape(shape_BND)
        grad_BND = grad.reshape(shape_BND)
        write_grad_sample(weight, (grad_BND * normalised_BND).sum(dim=1))
        if bias is not None:
            write_grad_sample(bias, grad_BND.sum(dim=1))
        grad_x = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], mean, rstd, weight, bias, [True, False, False]
        )[0]
        return grad_x, None, None, None


class _Embedding(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, padding_idx: int | None) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.parameter = weight
        ctx.padding_idx = padding_idx
        return F.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None]:
        (tokens,) = ctx.saved_tensors
        num_rows, width = ctx.parameter.shape
        num_samples = tokens.shape[0]
        offsets_B1 = num_rows * torch.arange(num_samples, device=tokens.device).unsqueeze(1)
        rows = (tokens.reshape(num_samples, -1) + offsets_B1).reshape(-1)
        grad_sample = grad_outputs[0].new_zeros(num_samples * num_rows, width)
        grad_sample.index_add_(0, rows, grad_outputs[0].reshape(-1, width))
        grad_sample = grad_sample.reshape(num_samples, num_rows, width)
        if ctx.padding_idx is not None:
            grad_sample[:, ctx.padding_idx] = 0.0
        write_grad_sample(ctx.parameter, grad_sample)
        return None, None, None


class _Positions(Function):
    @staticmethod
    def forward(ctx: Any, x_BGTD: Tensor, weight_TD: Tensor) -> Tensor:
        ctx.parameter = weight_TD
        return x_BGTD + weight_TD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        write_grad_sample(ctx.parameter, grad_outputs[0].sum(dim=1))
        return grad_outputs[0], None
