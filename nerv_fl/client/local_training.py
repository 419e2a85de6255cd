"""A node's local training: Poisson-sampled DP-SGD on its own shard, giving an update and nothing else.

For each local step: draw each of the n records with probability q, form the per-record gradients g_k, and take

    theta <- theta - eta (sum_k g_k min(1, C / |g_k|) + N(0, (sigma C)^2)) / (q n)

The denominator q n is fixed; an empty batch still steps, adds noise and counts. g_k is the gradient of `loss_scale`
times the loss in the trained parameters; the others keep their values, exactly.

Where the unit of privacy is a chain, k counts chains: each is drawn with all of its S records, and g_k is the mean of
their gradients. A sum would be S times as long before the same clip; a mean is about as long as one record's gradient,
less what its records do not share.

Source: Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1.

Shapes: B records of one batch, U units of a node, S records of a unit, P parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.client.sgd import PlainSGD
from nerv_fl.config import RunConfig
from nerv_fl.models.device import moved, usable_device
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.models.trainable import train_only
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.privacy.grad_sample import ENGINES
from nerv_fl.privacy.layers import average_units, drop_non_finite, empty_grad_samples, trained_parameters
from nerv_fl.rng import Source, stream
from nerv_fl.tasks.registry import AnyTask
from nerv_fl.tasks.task import Batch
from nerv_fl.types import IntArray

Records: TypeAlias = IntArray
"""Numbers of a node's samples in its data file."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """A node's three independent random streams of one round."""

    sampling: Source
    masks: np.random.Generator
    noise: Source


def seeded_streams(seed: int, round_number: int, number: int) -> Streams:
    """Return a simulated node's streams of a round; in deployment nobody may know the records drawn, or the noise."""
    address = (round_number, number)
    return Streams(
        sampling=stream(seed, "sampling", *address),
        masks=stream(seed, "masks", *address),
        noise=stream(seed, "noise", *address),
    )


def sampling_rate(config: RunConfig, samples: Records) -> float:
    """Return q of a node: what it samples units with, and what its accountant reckons with."""
    return config.training.expected_batch / (len(samples) // config.records_per_unit)


class Trainer:
    """A resident model with its optimiser: built once for each process, used for every node it hosts.

    Args:
        task: What is trained; its settings say batch, step sizes and mechanism.
    """

    def __init__(self, task: AnyTask) -> None:
        training = task.config.training
        self._task = task
        self._device = usable_device(training.device, name="training.device")
        self._model: nn.Module = task.build().to(self._device).train()
        self._engine = ENGINES[training.dp_engine](self._model)
        self._training = training
        self._unit_size = task.config.records_per_unit
        train_only(self._model, training.trainable)
        self._optimizer = private_optimizer(
            self._model,
            PlainSGD(trained_parameters(self._model), lr=training.learning_rate),
            privacy=task.config.privacy,
            expected_batch=training.expected_batch,
        )
        self._buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

    @property
    def task(self) -> AnyTask:
        """What it trains."""
        return self._task

    @cached_property
    def num_parameters(self) -> int:
        """P of the model it trains."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def update(self, theta_P: Tensor, data: Any, *, samples: Records, streams: Streams) -> Tensor:
        """Return theta_i - theta after the local steps, float32 (P,).

        Args:
            theta_P: The round's weights.
            data: The task's open file that holds the node's records.
            samples: int64 [n], this node's samples in it.
            streams: The node's streams of this round.
        """
        set_flat(self._model, theta_P)
        self._forget()
        self._optimizer.noise = streams.noise
        rate, units_US = sampling_rate(self._task.config, samples), samples.reshape(-1, self._unit_size)
        for _ in range(self._training.local_steps):
            drawn = units_US[np.flatnonzero(streams.sampling.random(len(units_US)) < rate)].reshape(-1)
            self._step(self._task.draw(data, drawn, streams.masks))
        return get_flat(self._model).cpu() - theta_P

    def clipped_sum(self, theta_P: Tensor, batch: Batch) -> Tensor:
        """Return the sum of the units' clipped gradients, to which a step would add noise, float32 (P,).

        Args:
            theta_P: The weights.
            batch: Samples of whole units.
        """
        set_flat(self._model, theta_P)
        self._forget()
        self._step(batch, only_sum=True)
        sums = [getattr(parameter, "summed_grad", None) for parameter in self._model.parameters()]
        flat = [
            (torch.zeros_like(parameter) if summed is None else summed).reshape(-1)
            for parameter, summed in zip(self._model.parameters(), sums, strict=True)
        ]
        self._forget()
        return torch.cat(flat).detach().cpu()

    def form_gradients(self, theta_P: Tensor, batch: Batch) -> dict[str, Tensor | None]:
        """Return the per-sample gradients that the engine forms, (B, *shape) by name of each trained parameter.

        A parameter for which it forms none has None.

        Args:
            theta_P: The weights.
            batch: B samples, formed in one backward pass.
        """
        set_flat(self._model, theta_P)
        self._forget()
        with self._engine():
            self._task.objective(self._model)(moved(batch, self._device)).sum().backward()
        trained = {name: item for name, item in self._model.named_parameters() if item.requires_grad}
        gradients = {name: getattr(item, "grad_sample", None) for name, item in trained.items()}
        self._forget()
        return gradients

    def _step(self, batch: Batch, *, only_sum: bool = False) -> None:
        """Take one step, or stop before noise is added if `only_sum`."""
        losses = self._task.objective(self._model)
        whole_units = max(1, self._training.micro_batch // self._unit_size) * self._unit_size
        starts = range(0, batch.num_samples, whole_units)
        for start in starts:
            part = moved(batch.part(start, start + whole_units), self._device)
            with self._engine():
                (self._training.loss_scale * losses(part).sum()).backward()
            average_units(self._model, self._unit_size)
            drop_non_finite(self._model)
            self._optimizer.signal_skip_step(do_skip=only_sum or start != starts[-1])
            self._optimizer.step()
            self._optimizer.zero_grad()
        if not starts:
            empty_grad_samples(self._model)
            self._optimizer.step()
            self._optimizer.zero_grad()

    def _forget(self) -> None:
        """Restore what a step of another node may have left: gradients, queued skips, buffers.

        A step that failed leaves its place in the optimizer's queue, which would skip the next node's step.
        """
        self._optimizer.forget()
        for parameter in self._model.parameters():
            parameter.grad_sample = parameter.summed_grad = parameter.grad = None  # type: ignore[attr-defined]
        for name, buffer in self._model.named_buffers():
            buffer.copy_(self._buffers[name])


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A round's work of one node, ready to be done.

    Attributes:
        number: The node.
        round_number: The round.
        theta_P: The round's weights, float32.
        samples: int64 [n], the node's samples in the data file.
        streams: The node's streams of this round.
        trainer: The process's resident model.
        data: The task's open file that holds the shards of all nodes it hosts.
        folder: The node's own folder.
    """

    number: int
    round_number: int
    theta_P: Tensor
    samples: Records
    streams: Streams
    trainer: Trainer
    data: Any
    folder: Path


LocalTraining: TypeAlias = Callable[[Assignment], Tensor]
"""What a node does with its work: an update, float32 (P,)."""


def train_honestly(work: Assignment) -> Tensor:
    """Return the update of DP-SGD on the node's own shard."""
    return work.trainer.update(work.theta_P, work.data, samples=work.samples, streams=work.streams)
