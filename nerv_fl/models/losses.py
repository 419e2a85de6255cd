"""What the encoder is trained to do: one number per sample, and two terms that need no data.

    loss(sample) = 0.1 drift^2 / (|sum delta|^2 + f^2) + mean over its masked balances of -log p(bucket)
    drift        = |R(S') - R(S)|_2 = |E_live(S') - E_live(S) - sum delta|_2
    sum delta    = sum_i ((b'_i - b_i) / T) V_i

V and the denominator carry no gradient; f is a public constant, so nothing mixes samples and per-sample clipping is
sound.

    free(theta)  = spread_weight mean_ij (cos(V_i, V_j) - [i = j])^2 + size_weight mean_i (|V_i| - 1)^2

Shapes: B samples, T tokens, A accounts, D width, K buckets.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder

DRIFT_WEIGHT = 0.1
MOVEMENT_FLOOR = 0.1
"""f is this times the median movement of the public data."""


@dataclass(frozen=True, kw_only=True)
class SampleLosses:
    """The loss of each sample and what it is made of; every field is float32.

    Attributes:
        loss_B: The data loss.
        drift_B: |R(S') - R(S)|_2.
        delta_B: |sum delta|_2.
        masked_ce_B: Cross-entropy of the sample's own masked balances, nats.
        residual_B2D: R of the states before and after.
    """

    loss_B: Tensor
    drift_B: Tensor
    delta_B: Tensor
    masked_ce_B: Tensor
    residual_B2D: Tensor


def sample_losses(encoder: Encoder, batch: StateBatch, *, table_AD: Tensor, movement_floor: float) -> SampleLosses:
    """Return the per-sample losses of a batch, V carrying no gradient.

    Args:
        encoder: Encoder, in whichever gradient mode.
        batch: B samples.
        table_AD: The encoder's current table, detached.
        movement_floor: f, in units of |sum delta|.
    """
    return _losses(encoder, encoder.hidden(batch.tokens_B3T), batch, table=table_AD, movement_floor=movement_floor)


def sample_losses_through_table(encoder: Encoder, batch: StateBatch, *, movement_floor: float) -> SampleLosses:
    """Return the same losses with the gradient through V and the denominator too, for valuing a whole candidate.

    Each sample computes V for itself from a blank state beside its own three, so per-sample gradients hold all of it.
    """
    blank_B1T = encoder.blank_tokens().expand(batch.num_samples, 1, -1)
    hidden_B4TD = encoder.hidden(torch.cat([batch.tokens_B3T, blank_B1T], dim=1))
    table = encoder.table_of(hidden_B4TD[:, 3])
    return _losses(encoder, hidden_B4TD[:, :3], batch, table=table, movement_floor=movement_floor)


def _losses(
    encoder: Encoder, hidden_B3TD: Tensor, batch: StateBatch, *, table: Tensor, movement_floor: float
) -> SampleLosses:
    """Return the losses under one table (A, D) for all samples, or one for each (B, A, D)."""
    residual_B2D = encoder.residual(hidden_B3TD[:, :2], batch.weights_B2A, table=table)
    change_B1A = (batch.weights_B2A[:, 1] - batch.weights_B2A[:, 0]).unsqueeze(1)
    delta_BD = (change_B1A @ table).squeeze(1)
    drift_square_B = (residual_B2D[:, 1] - residual_B2D[:, 0]).square().sum(dim=1)
    delta_square_B = delta_BD.square().sum(dim=1)
    masked_ce_B = masked_cross_entropy(encoder, hidden_B3TD[:, 2], batch)
    relative_B = drift_square_B / (delta_square_B + movement_floor**2)
    return SampleLosses(
        loss_B=DRIFT_WEIGHT * relative_B + masked_ce_B,
        drift_B=drift_square_B.detach().sqrt(),
        delta_B=delta_square_B.detach().sqrt(),
        masked_ce_B=masked_ce_B,
        residual_B2D=residual_B2D,
    )


def masked_cross_entropy(encoder: Encoder, hidden_BTD: Tensor, batch: StateBatch) -> Tensor:
    """Return each sample's mean cross-entropy over its own masked balances, float32 (B,), nats."""
    logits_BAK = encoder.balance_logits(hidden_BTD)
    entropy_BA = F.cross_entropy(logits_BAK.transpose(1, 2), batch.targets_BA, reduction="none")
    masked_BA = batch.masked_BA.to(entropy_BA.dtype)
    mean_B: Tensor = (entropy_BA * masked_BA).sum(dim=1) / masked_BA.sum(dim=1)
    return mean_B


def data_free_loss(table_AD: Tensor, *, spread_weight: float, size_weight: float) -> Tensor:
    """Return the terms that need no data, a scalar: they cost no privacy, so the server adds their gradient itself.

    Args:
        table_AD: V with its gradient.
        spread_weight: Weight of the squared cosine Gram matrix minus the identity.
        size_weight: Weight of the squared distance of each norm from 1.
    """
    norm_A = table_AD.norm(dim=1)
    unit_AD = table_AD / norm_A.clamp_min(1e-6).unsqueeze(1)
    gram_AA = unit_AD @ unit_AD.T - torch.eye(table_AD.shape[0], device=table_AD.device)
    loss: Tensor = spread_weight * gram_AA.square().mean() + size_weight * (norm_A - 1).square().mean()
    return loss


def data_free_gradient(encoder: Encoder, *, spread_weight: float, size_weight: float) -> Tensor:
    """Return the gradient of `data_free_loss` as a flat float32 vector (P,)."""
    parameters = list(encoder.parameters())
    loss = data_free_loss(encoder.table(), spread_weight=spread_weight, size_weight=size_weight)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
