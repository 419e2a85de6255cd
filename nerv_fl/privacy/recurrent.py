"""Layers over time that can form per-sample gradients and nothing else, as those of `nerv_fl.privacy.layers`.

The LSTM:

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh          i, f, g, o = the four quarters of a_t
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)        h_t = sigmoid(o) tanh(c_t)

Every weight enters through a_t alone. With the gradient of a_t at hand for all t, a sample's gradient of W_ih is
sum_t grad a_t x_t^T, and of W_hh sum_t grad a_t h_{t-1}^T: one product for each sample and matrix, where adding up the
steps one by one would write every per-sample gradient T times.

Sources: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Gers, Schmidhuber and Cummins, "Learning to
forget", 2000; Goodfellow, "Efficient per-example gradient computations", 2015.

Shapes: B samples, T steps, I inputs, H units, G = 4H gates; K steps averaged, D metrics.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from nerv_fl.privacy.layers import PerSampleLayer, write_grad_sample


class LSTM(nn.LSTM, PerSampleLayer):
    """torch's LSTM, batch first, one direction: (B, T, I) -> (B, T, H) and the last states.

    Its parameters have the names and shapes of `torch.nn.LSTM`, which are those of `opacus.layers.DPLSTM` too.

    Args:
        num_inputs: I.
        num_units: H.
        num_layers: Layers, one upon the other.
    """

    def __init__(self, num_inputs: int, num_units: int, *, num_layers: int) -> None:
        super().__init__(num_inputs, num_units, num_layers=num_layers, batch_first=True)

    def draw_parameters(self, generator: torch.Generator) -> None:
        """Draw every parameter uniformly from +-1/sqrt(H), as torch does; the forget gates' b_ih starts at 1.

        Source: Jozefowicz, Zaremba and Sutskever, "An empirical exploration of recurrent network architectures", 2015
        (the forget gate's bias).
        """
        bound = 1.0 / math.sqrt(self.hidden_size)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
                if name.startswith("bias_ih"):
                    parameter[self.hidden_size : 2 * self.hidden_size] = 1.0

    def forward(self, input: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        """Run over the steps, from states of zero."""
        if not (self.per_sample and torch.is_grad_enabled()):
            output: tuple[Tensor, tuple[Tensor, Tensor]] = super().forward(input)
            return output
        states, x_BTI = [], input
        for number in range(self.num_layers):
            weights = _Weights(*(getattr(self, f"{name}_l{number}") for name in _Weights._fields))
            x_BTI, last = _run(x_BTI, weights)
            states.append(last)
        hidden, cell = (torch.stack(part) for part in zip(*states, strict=True))
        return x_BTI, (hidden, cell)


class RecentAverage(PerSampleLayer):
    """An average of each metric's last K values, ``sum_k (1/K + w_kd - mean_j w_jd) x_{t-k,d}``: its weights sum to 1.

    Weights may be negative, so that it can go on with a trend as well as smooth.

    Args:
        num_steps: K.
        num_metrics: D.
    """

    def __init__(self, num_steps: int, num_metrics: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_steps, num_metrics))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the average at each step that has K - 1 steps before it, (B, T - K + 1, D)."""
        weight: Tensor = self.weight
        if self.per_sample and torch.is_grad_enabled():
            weight = _Copies.apply(weight, len(x_BTD))  # type: ignore[no-untyped-call]
        num_steps, length = self.weight.shape[0], x_BTD.shape[1]
        shares = (weight - weight.mean(dim=-2, keepdim=True) + 1.0 / num_steps).unsqueeze(-2)
        parts = [shares[..., back, :, :] * x_BTD[:, num_steps - 1 - back : length - back] for back in range(num_steps)]
        return torch.stack(parts).sum(dim=0)


class _Copies(Function):
    """One copy of a parameter for each sample; their gradients are the per-sample gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, num_samples: int) -> Tensor:
        ctx.parameter = weight
        return weight.expand(num_samples, *weight.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        write_grad_sample(ctx.parameter, grad_outputs[0])
        return None, None


class _Weights(NamedTuple):
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


def _run(x_BTI: Tensor, weights: _Weights) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run one layer, its weights detached but for their per-sample gradients."""
    plain = _Weights(*(weight.detach() for weight in weights))
    hidden = cell = x_BTI.new_zeros(len(x_BTI), weights.weight_hh.shape[1])
    earlier: list[Tensor] = []
    drive_BTG = F.linear(x_BTI, plain.weight_ih, plain.bias_ih + plain.bias_hh)
    if not drive_BTG.requires_grad:  # the first layer: autograd must come by all the same
        drive_BTG.requires_grad_()
    gates_BTG = _Gates.apply(drive_BTG, x_BTI, weights, earlier)  # type: ignore[no-untyped-call]
    outputs = []
    for drive_BG in gates_BTG.unbind(1):
        earlier.append(hidden.detach())
        i, f, g, o = (drive_BG + hidden @ plain.weight_hh.T).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs, dim=1), (hidden, cell)


class _Gates(Function):
    """The identity on W_ih x_t + b; its backward pass sees grad a_t, and writes the layer's per-sample gradients."""

    @staticmethod
    def forward(ctx: Any, drive_BTG: Tensor, x_BTI: Tensor, weights: _Weights, earlier: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x_BTI)
        ctx.weights, ctx.earlier = weights, earlier
        return drive_BTG.view_as(drive_BTG)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (x_BTI,) = ctx.saved_tensors
        grad_BTG, weights = grad_outputs[0], ctx.weights
        grad_BGT = grad_BTG.transpose(1, 2)
        write_grad_sample(weights.weight_ih, torch.bmm(grad_BGT, x_BTI))
        write_grad_sample(weights.weight_hh, torch.bmm(grad_BGT, torch.stack(ctx.earlier, dim=1)))
        for bias in (weights.bias_ih, weights.bias_hh):
            write_grad_sample(bias, grad_BTG.sum(dim=1))
        return grad_BTG, None, None, None
