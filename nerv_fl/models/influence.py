"""How held-out losses answer to a small move of the weights.

Shapes: K samples, P parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from nerv_fl.arrays import FloatArray, Vector
from nerv_fl.models.layers import clear_grad_samples, per_sample_gradients

Losses: TypeAlias = Callable[[Any, Any], torch.Tensor]
"""Of a model and a batch: the loss of each sample, (n,), with its gradient by all weights."""


def sample_gradients(model: nn.Module, batch: Any, *, losses: Losses, chunk: int) -> Iterator[Vector]:
    """Yield each sample's gradient of its loss, `chunk` samples at a time (bits depend on it), float32 [n, P].

    Args:
        model: The model at the point of expansion.
        batch: K samples.
        losses: The loss of each sample.
        chunk: Samples whose gradients stand in memory together.
    """
    for start in range(0, batch.num_samples, chunk):
        part = batch.part(start, start + chunk)
        with per_sample_gradients(model):
            losses(model, part).sum().backward()
        gradients = [_taken(parameter, part.num_samples) for parameter in model.parameters()]
        clear_grad_samples(model)
        yield torch.cat(gradients, dim=1).cpu().numpy()


def mean_gradient(model: nn.Module, batch: Any, *, losses: Losses, chunk: int) -> FloatArray:
    """Return the gradient of the mean loss, float64 [P], with the activations of `chunk` samples in memory."""
    parameters = list(model.parameters())
    total_P: FloatArray = np.zeros(sum(parameter.numel() for parameter in parameters))
    for start in range(0, batch.num_samples, chunk):
        part = batch.part(start, start + chunk)
        gradients = torch.autograd.grad(losses(model, part).sum(), parameters)
        total_P += torch.cat([gradient.reshape(-1) for gradient in gradients]).cpu().numpy()
    return np.asarray(total_P / batch.num_samples)


def _taken(parameter: torch.nn.Parameter, num_samples: int) -> torch.Tensor:
    grad_sample: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return grad_sample.reshape(num_samples, -1)
