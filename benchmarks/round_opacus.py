"""The benchmarks' encoder under Opacus' own hooks, as our peers' users would train it."""

from collections.abc import Sequence

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn, optim

from benchmarks.round_work import Shards
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear, Positions


def teach_opacus() -> None:
    """Tell Opacus which of its samplers serve our layers, which are torch's, and give it one line for the positions."""
    samplers = GradSampleModule.GRAD_SAMPLERS
    samplers |= {Linear: samplers[nn.Linear], LayerNorm: samplers[nn.LayerNorm], Embedding: samplers[nn.Embedding]}
    samplers[Positions] = _sample_positions


def private_optimizer(model: nn.Module, shards: Shards) -> DPOptimizer:
    """Return Opacus' optimizer with the run's mechanism, its noise from torch's generator."""
    training, privacy = shards.config.training, shards.config.privacy
    return DPOptimizer(
        optim.SGD(model.parameters(), lr=training.learning_rate),
        noise_multiplier=privacy.sigma,
        max_grad_norm=privacy.clip,
        expected_batch_size=training.expected_batch,
        loss_reduction="mean",
        generator=torch.Generator().manual_seed(shards.config.seed),
    )


def train(model: Encoder, optimizer: DPOptimizer, *, batches: Sequence[StateBatch], shards: Shards) -> None:
    """Take one DP step a batch; `model` was given its hooks."""
    for batch in batches:
        shards.task.objective(model)(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def _sample_positions(layer: Positions, _: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    return {layer.weight: backprops.sum(dim=1)}
