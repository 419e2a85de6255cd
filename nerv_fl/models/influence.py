"""How held-out losses answer to a small move of the weights.

Shapes: K samples, P parameters.
"""

from collections.abc import Iterator

import numpy as np
import torch

from nerv_fl.arrays import FloatArray, Vector
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.layers import clear_grad_samples, per_sample_gradients
from nerv_fl.models.losses import sample_losses_through_table


def sample_gradients(encoder: Encoder, batch: StateBatch, *, movement_floor: float, chunk: int) -> Iterator[Vector]:
    """Yield each sample's gradient of its loss, `chunk` samples at a time (bits depend on it), float32 [n, P].

    Args:
        encoder: Encoder at the point of expansion.
        batch: K samples.
        movement_floor: f of the loss.
        chunk: Samples whose gradients stand in memory together.
    """
    for start in range(0, batch.num_samples, chunk):
        part = batch.part(start, start + chunk)
        with per_sample_gradients(encoder):
            sample_losses_through_table(encoder, part, movement_floor=movement_floor).loss_B.sum().backward()
        gradients = [_taken(parameter, part.num_samples) for parameter in encoder.parameters()]
        clear_grad_samples(encoder)
        yield torch.cat(gradients, dim=1).cpu().numpy()


def mean_gradient(encoder: Encoder, batch: StateBatch, *, movement_floor: float, chunk: int) -> FloatArray:
    """Return the gradient of the mean loss, float64 [P], with the activations of `chunk` samples in memory."""
    parameters = list(encoder.parameters())
    total_P = np.zeros(encoder.num_parameters)
    for start in range(0, batch.num_samples, chunk):
        part = batch.part(start, start + chunk)
        loss = sample_losses_through_table(encoder, part, movement_floor=movement_floor).loss_B.sum()
        gradients = torch.autograd.grad(loss, parameters)
        total_P += torch.cat([gradient.reshape(-1) for gradient in gradients]).cpu().numpy()
    return total_P / batch.num_samples


def _taken(parameter: torch.nn.Parameter, num_samples: int) -> torch.Tensor:
    grad_sample: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return grad_sample.reshape(num_samples, -1)
