"""The gradient of one step, formed in parts so that a batch of any size fits in memory, and shared by workers.

    g = sum over parts of grad (sum of the part's losses) / B        + the gradient of the data-free terms

It is the whole batch's gradient up to rounding. Under DP each part's per-sample gradients are clipped and summed; noise
is added once, to the sum over all parts and workers.

In bfloat16 the blocks of the masked state run under autocast: weights, residual stream, read-out and loss stay float32.
Steps with the drift term stay float32 altogether: drift is the difference of two nearly equal states, smaller than
what 8 bits of mantissa can tell apart (`docs/models-encoder.md` has the figures).

Shapes: B samples, A accounts, D width, T tokens, P parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nerv_fl.bootstrap.privileged_features import hinted
from nerv_fl.config import BootstrapConfig
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import data_free_gradient, masked_cross_entropy, sample_losses
from nerv_fl.privacy.accounting import PrivateOptimizer
from nerv_fl.privacy.layers import clear_grad_samples, drop_non_finite, empty_grad_samples, per_sample_gradients


def _alone(vector_P: Tensor) -> Tensor:
    return vector_P


@dataclass(frozen=True, kw_only=True)
class Team:
    """The workers that share each batch.

    Attributes:
        rank: This worker's number, from 0.
        size: How many there are.
        add_up: Returns the sum of all workers' vectors, the same bits on each.
    """

    rank: int = 0
    size: int = 1
    add_up: Callable[[Tensor], Tensor] = _alone

    def share(self, batch: StateBatch) -> StateBatch:
        """Return this worker's samples of a batch: consecutive ones, as many as the others' or one fewer."""
        return batch.part(self.rank * batch.num_samples // self.size, (self.rank + 1) * batch.num_samples // self.size)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a step descends on.

    Attributes:
        settings: Size of the parts, precision, weights of the data-free terms.
        movement_floor: f of the loss.
        with_drift: Whether the drift term is in it.
        team: Who shares the batch.
    """

    settings: BootstrapConfig
    movement_floor: float
    with_drift: bool
    team: Team


def plain_gradient(encoder: Encoder, batch: StateBatch, *, objective: Objective) -> float:
    """Set `grad` of every parameter to the batch's mean gradient, the data-free terms' included.

    Returns:
        The batch's mean loss without the data-free terms. If it is not finite, neither is the gradient.
    """
    table_AD = _table(encoder) if objective.with_drift else None
    encoder.zero_grad()
    total = torch.zeros(1)
    for part in _parts(encoder, objective.team.share(batch), size=objective.settings.micro_batch):
        loss = _losses(encoder, part, table_AD=table_AD, objective=objective).sum() / batch.num_samples
        loss.backward()
        total += loss.detach().cpu()
    total = _add_up(encoder, total, team=objective.team)
    _add_data_free_gradient(encoder, objective.settings)
    return float(total)


def private_gradient(encoder: Encoder, private: PrivateOptimizer, *, batch: StateBatch, objective: Objective) -> None:
    """Set `grad` of every parameter to the DP-SGD gradient, the data-free terms', which need no noise, included.

    Args:
        encoder: The model.
        private: Its optimiser, with the source of noise set; all workers draw the same noise.
        batch: A Poisson batch; it may be empty.
        objective: What to descend on; the drift term is always in it.

    Guarantees:
        The sum before noise changes by at most the clipping norm when one record is added or removed, whatever the
        parts and workers.
    """
    table_AD = _table(encoder)
    private.zero_grad()
    own = objective.team.share(batch)
    for part in _parts(encoder, own, size=objective.settings.micro_batch) if own.num_samples else (own,):
        clear_grad_samples(encoder)
        if part.num_samples:
            with per_sample_gradients(encoder):
                _losses(encoder, part, table_AD=table_AD, objective=objective).sum().backward()
            drop_non_finite(encoder)
        else:
            empty_grad_samples(encoder)
        private.clip_and_accumulate()
    _add_up_clipped(encoder, team=objective.team)
    private.add_noise()
    private.scale_grad()
    _add_data_free_gradient(encoder, objective.settings)


def _losses(encoder: Encoder, part: StateBatch, *, table_AD: Tensor | None, objective: Objective) -> Tensor:
    """Return each sample's loss (B,): with the drift term if there is a table, else of its masked state alone."""
    if table_AD is not None:
        with hinted(encoder, part.hint_BAD):
            return sample_losses(encoder, part, table_AD=table_AD, movement_floor=objective.movement_floor).loss_B
    in_bfloat16 = objective.settings.precision == "bfloat16"
    device = part.tokens_B3T.device.type
    with hinted(encoder, part.hint_BAD), torch.autocast(device, dtype=torch.bfloat16, enabled=in_bfloat16):
        hidden_BTD = encoder.hidden(part.tokens_B3T[:, 2:])[:, 0]
    return masked_cross_entropy(encoder, hidden_BTD.float(), part)


def _table(encoder: Encoder) -> Tensor:
    with torch.no_grad():
        return encoder.table()


def _parts(encoder: Encoder, batch: StateBatch, *, size: int) -> Iterator[StateBatch]:
    for start in range(0, batch.num_samples, size):
        yield batch.part(start, start + size).to(encoder.blank_T.device)


def _add_up(encoder: Encoder, total: Tensor, *, team: Team) -> Tensor:
    """Make every worker's gradient the sum of all; return the sum of the losses (1,)."""
    if team.size == 1:
        return total
    parameters = list(encoder.parameters())
    gradients = [torch.zeros_like(item) if item.grad is None else item.grad for item in parameters]
    sum_P1 = team.add_up(torch.cat([total, *(gradient.reshape(-1).cpu() for gradient in gradients)]))
    for parameter, part in zip(parameters, _split(sum_P1[1:], parameters), strict=True):
        parameter.grad = part.to(parameter.device)
    return sum_P1[:1]


def _add_up_clipped(encoder: Encoder, *, team: Team) -> None:
    """Make every worker's sum of clipped gradients the sum of all, before anybody adds noise."""
    if team.size == 1:
        return
    parameters = list(encoder.parameters())
    sums = [parameter.summed_grad.reshape(-1).cpu() for parameter in parameters]  # type: ignore[attr-defined]
    for parameter, part in zip(parameters, _split(team.add_up(torch.cat(sums)), parameters), strict=True):
        parameter.summed_grad = part.to(parameter.device)  # type: ignore[attr-defined]


def _split(vector_P: Tensor, parameters: list[torch.nn.Parameter]) -> Iterator[Tensor]:
    parts = vector_P.split([item.numel() for item in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        yield part.reshape(parameter.shape)


def _add_data_free_gradient(encoder: Encoder, weights: BootstrapConfig) -> None:
    parameters = list(encoder.parameters())
    gradient_P = data_free_gradient(encoder, spread_weight=weights.spread_weight, size_weight=weights.size_weight)
    for parameter, free in zip(parameters, _split(gradient_P, parameters), strict=True):
        parameter.grad = free.clone() if parameter.grad is None else parameter.grad + free
