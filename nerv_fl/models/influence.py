"""How each held-out sample's loss answers to a small move of the weights, in many directions at once.

Shapes: K samples, N directions, P parameters.
"""

import numpy as np
import torch

from nerv_fl.arrays import FloatArray
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.layers import clear_grad_samples, per_sample_gradients
from nerv_fl.models.losses import sample_losses_through_table


def gradient_products(
    encoder: Encoder, batch: StateBatch, *, directions_NP: torch.Tensor, movement_floor: float, chunk: int
) -> FloatArray:
    """Return minus <gradient of sample k's loss, direction i>: the loss it would lose, to first order, float64 (K, N).

    Args:
        encoder: Encoder at the point of expansion.
        batch: K samples.
        directions_NP: float32, in the order of the flat parameter vector.
        movement_floor: f of the loss.
        chunk: Samples whose gradients stand in memory together (bits depend on it).
    """
    parts = []
    for start in range(0, batch.num_samples, chunk):
        part = batch.part(start, start + chunk)
        with per_sample_gradients(encoder):
            sample_losses_through_table(encoder, part, movement_floor=movement_floor).loss_B.sum().backward()
        gradients = [_taken(parameter, part.num_samples) for parameter in encoder.parameters()]
        clear_grad_samples(encoder)
        parts.append(torch.cat(gradients, dim=1) @ directions_NP.T)
    return -torch.cat(parts).cpu().numpy().astype(np.float64)


def _taken(parameter: torch.nn.Parameter, num_samples: int) -> torch.Tensor:
    grad_sample: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return grad_sample.reshape(num_samples, -1)
