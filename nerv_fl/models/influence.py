"""How held-out losses answer to a small move of the weights.

Shapes: K samples, P parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from nerv_fl.privacy.layers import PerSampleLayer, clear_grad_samples, per_sample_gradients, trained_parameters
from nerv_fl.types import FloatArray, Vector

Losses: TypeAlias = Callable[[Any, Any], torch.Tensor]
"""Of a model and a batch: the loss of each sample, (n,), with its gradient by all weights."""


def sample_gradients(model: nn.Module, batch: Any, *, losses: Losses, chunk: int) -> Iterator[Vector]:
    """Yield each sample's gradient of its loss, `chunk` samples at a time (bits depend on it), float32 [n, P].

    A model whose parameters all lie in per-sample layers takes one backward pass a chunk; any other one pass a sample.
    Frozen parameters have zeros.

    Args:
        model: The model at the point of expansion.
        batch: K samples.
        losses: The loss of each sample.
        chunk: Samples whose gradients stand in memory together.
    """
    form = _together if _has_per_sample_layers_alone(model) else _one_by_one
    for start in range(0, batch.num_samples, chunk):
        yield form(model, batch.part(start, start + chunk), losses).cpu().numpy()


def mean_gradient(model: nn.Module, batch: Any, *, losses: Losses, chunk: int) -> FloatArray:
    """Return the gradient of the mean loss, float64 [P], with the activations of `chunk` samples in memory."""
    total_P: FloatArray = np.zeros(sum(parameter.numel() for parameter in model.parameters()))
    for start in range(0, batch.num_samples, chunk):
        total_P += flat_gradient(model, losses(model, batch.part(start, start + chunk)).sum()).cpu().numpy()
    return np.asarray(total_P / batch.num_samples)


def flat_gradient(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a loss by all weights, (P,), by plain autograd.

    Frozen weights, and weights that the loss does not depend on, have zeros.
    """
    trained = trained_parameters(model)
    found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    gradients = dict(zip(trained, found, strict=True))
    parts = [gradients.get(parameter, torch.zeros_like(parameter)) for parameter in model.parameters()]
    return torch.cat([part.reshape(-1) for part in parts])


def _has_per_sample_layers_alone(model: nn.Module) -> bool:
    """Return whether each trained parameter belongs to a layer that can form per-sample gradients."""
    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    return all(isinstance(owner, PerSampleLayer) for owner in owners)


def _together(model: nn.Module, part: Any, losses: Losses) -> torch.Tensor:
    with per_sample_gradients(model):
        losses(model, part).sum().backward()
    gradients = [_taken(parameter, part.num_samples) for parameter in model.parameters()]
    clear_grad_samples(model)
    return torch.cat(gradients, dim=1)


def _one_by_one(model: nn.Module, part: Any, losses: Losses) -> torch.Tensor:
    singles = [part.part(number, number + 1) for number in range(part.num_samples)]
    return torch.stack([flat_gradient(model, losses(model, single).sum()) for single in singles])


def _taken(parameter: nn.Parameter, num_samples: int) -> torch.Tensor:
    grad_sample: torch.Tensor | None = getattr(parameter, "grad_sample", None)
    if grad_sample is None:  # frozen, or not used by this loss
        return parameter.new_zeros(num_samples, parameter.numel())
    return grad_sample.reshape(num_samples, -1)
