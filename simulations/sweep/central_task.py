"""Central training of any task without DP: AdamW on the bootstrap's schedule, on the nodes' data, from given weights.

Shapes: B samples of a batch, P parameters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from nerv_fl.bootstrap.schedule import cosine
from nerv_fl.enclave.gate import one_step_per_chain
from nerv_fl.errors import DataError
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.rng import stream
from nerv_fl.tasks.registry import AnyTask
from nerv_fl.types import IntArray, Vector

EVALUATIONS: Final = 8
"""How often a training is measured; the best weights are kept."""


def train_centrally(
    task: AnyTask, path: Path, *, start_P: Vector, progress: Callable[[int, int], None] | None = None
) -> Vector:
    """Return the best of the weights that a central training passes, by the chains that it does not train on.

    Args:
        task: The task; `bootstrap.steps`, `batch_size`, `learning_rate` and `weight_decay` of its settings count.
        path: Data file of the nodes.
        start_P: Weights to begin with, float32 (P,).
        progress: Called with (steps done, steps) at each evaluation.

    Raises:
        DataError: If the file has fewer than two chains.
    """
    settings, data = task.config.bootstrap, task.open(path)
    try:
        training, heldout = _split(task, data)
        model = task.build()
        set_flat(model, torch.from_numpy(start_P))
        best_P, best_loss = start_P, _loss(task, model, data=data, samples=heldout)
        optimizer = _optimizer(model, task)
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * cosine(step, settings)
            _take_step(task, model, optimizer, data=data, samples=training, step=step)
            if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
                loss = _loss(task, model, data=data, samples=heldout)
                if loss < best_loss:  # never of a loss that is not a number
                    best_P, best_loss = get_flat(model).numpy().copy(), loss
                if progress:
                    progress(step + 1, settings.steps)
    finally:
        data.close()
    return best_P


def _split(task: AnyTask, data: Any) -> tuple[IntArray, IntArray]:
    """Return the samples to train on, and one of each chain that is held out: the last chains, a quarter at most."""
    chains, steps = task.size_of(data)
    if chains <= 1:
        raise DataError(f"the nodes' data hold {chains} chains, expected at least 2: central training holds some out")
    heldout = min(task.config.data.heldout_chains, max(1, chains // 4))
    return np.arange((chains - heldout) * steps), one_step_per_chain(np.arange(chains - heldout, chains), steps)


def _optimizer(model: nn.Module, task: AnyTask) -> torch.optim.Optimizer:
    settings = task.config.bootstrap
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _take_step(
    task: AnyTask, model: nn.Module, optimizer: torch.optim.Optimizer, *, data: Any, samples: IntArray, step: int
) -> None:
    config = task.config
    address = ("central", step)
    drawn = stream(config.seed, "batches", *address).choice(
        samples, size=min(config.bootstrap.batch_size, len(samples)), replace=False
    )
    batch = task.draw(data, drawn, stream(config.seed, "masks", *address))
    optimizer.zero_grad()
    task.objective(model)(batch).mean().backward()
    optimizer.step()


def _loss(task: AnyTask, model: nn.Module, *, data: Any, samples: IntArray) -> float:
    measures = task.measure(model, task.read(data, samples), chunk=task.config.enclave.chunk)
    return float(measures.loss_B.mean())
