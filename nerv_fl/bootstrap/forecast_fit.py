"""Training the forecaster: Poisson batches, AdamW on a cosine, early stop on validation shards, exact resume.

The loss of a window is that of `nerv_fl.models.forecast_losses`. Validation takes, for the second term, the mean over
the metrics of the error over that of predicting no change. With ``dp`` each window's gradient is clipped to C and
N(0, (sigma C)^2) is added to their sum, by Opacus' optimiser.

Shapes: B windows, S judged steps, D metrics.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, optim

from nerv_fl.bootstrap.forecast_data import PoissonWindows
from nerv_fl.bootstrap.schedule import warm_cosine
from nerv_fl.config import PrivacyConfig
from nerv_fl.errors import DataError
from nerv_fl.models.forecast_losses import FIRST, METRICS_WEIGHT, Windows, overload_loss, window_losses
from nerv_fl.models.forecaster import METRICS, Forecaster
from nerv_fl.privacy.accounting import Mechanism, PrivateOptimizer, epsilon_of, private_optimizer
from nerv_fl.privacy.layers import drop_non_finite, empty_grad_samples, per_sample_gradients
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray
from nerv_fl.validation import in_range

MAX_NORM: Final = 1.0
"""Length at which the gradient of a batch is cut without DP."""
CHUNK: Final = 64
"""Windows held as per-sample gradients, or evaluated, at a time: 64 x 1.1 M x 4 bytes."""


@dataclass(frozen=True, kw_only=True)
class ForecastSettings:
    """Settings of the forecaster's training.

    Attributes:
        seed: Seed of weights, batches and noise.
        steps: Optimiser steps.
        batch_size: Expected windows of a batch.
        learning_rate: Highest step size.
        warmup_steps: Steps until it is reached.
        weight_decay: AdamW's.
        evaluate_every: Steps between evaluations and checkpoints.
        validation_windows: Windows of an evaluation.
        patience: Evaluations without a better one after which training stops.
        dp: Whether to train by DP-SGD.
        privacy: Its mechanism and delta.
    """

    seed: int = 7
    steps: int = 1000
    batch_size: int = 192
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    evaluate_every: int = 50
    validation_windows: int = 2000
    patience: int = 8
    dp: bool = False
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        in_range("seed", self.seed, low=0, high=2**63 - 1)
        in_range("steps", self.steps, low=1, high=10**7)
        in_range("batch size", self.batch_size, low=2, high=10**5)
        in_range("learning rate", self.learning_rate, low=0, high=10, open_low=True)
        in_range("warm-up steps", self.warmup_steps, low=0, high=10**7)
        in_range("weight decay", self.weight_decay, low=0, high=10)
        in_range("evaluate every", self.evaluate_every, low=1, high=10**7)
        in_range("validation windows", self.validation_windows, low=2, high=10**6)
        in_range("patience", self.patience, low=1, high=10**6)

    def rate(self, step: int) -> float:
        """Return the step size of a step, counted from 1: a linear rise, then half a cosine to 0."""
        return warm_cosine(step, peak=self.learning_rate, warmup_steps=self.warmup_steps, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Validation loss after a step: cross-entropy of overload, in nats, and lambda times errors over no change's."""

    step: int
    loss: float
    overload: float
    metrics: float


Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands: enough to go on from, bit for bit."""

    history: tuple[Evaluation, ...]
    best: Evaluation
    best_weights: Weights
    weights: Weights
    optimizer: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.history[-1].step

    def stale(self) -> int:
        """Evaluations since the best."""
        return sum(entry.step > self.best.step for entry in self.history)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What training learns from: batches, the offsets of their logits, and windows of validation shards."""

    batches: PoissonWindows
    offsets: FloatArray
    validation: Windows

    @classmethod
    def of(cls, train: PoissonWindows, validation: PoissonWindows, settings: ForecastSettings) -> "Lesson":
        """Fix what does not change during training; validation windows come in the batches' proportion."""
        rng = stream(settings.seed, "forecaster", "validation")
        windows = validation.fixed(rng, size=settings.validation_windows)
        return cls(batches=train, offsets=train.offsets(), validation=windows)


def evaluate(model: Forecaster, lesson: Lesson, *, step: int) -> Evaluation:
    """Return the validation loss."""
    size = len(lesson.validation.ahead_BS)
    overload, missed_D, changed_D = 0.0, torch.zeros(METRICS).double(), torch.zeros(METRICS).double()
    with torch.no_grad():
        for start in range(0, size, CHUNK):
            part = lesson.validation.part(start, start + CHUNK)
            found, next_BSD = model.every_step(part.metrics_BWD[:, :-1], first=FIRST), part.metrics_BWD[:, FIRST + 1 :]
            overload += float(overload_loss(found.logit_BS, part, offsets=lesson.offsets).double().sum())
            missed_D += (found.next_BSD - next_BSD).abs().double().sum(dim=(0, 1))
            changed_D += (part.metrics_BWD[:, FIRST:-1] - next_BSD).abs().double().sum(dim=(0, 1))
    metrics = float((missed_D / changed_D.clamp_min(1e-9)).mean())
    loss = overload / size + METRICS_WEIGHT * metrics
    return Evaluation(step=step, loss=loss, overload=overload / size, metrics=metrics)


def fit(
    model: Forecaster,
    lesson: Lesson,
    settings: ForecastSettings,
    *,
    begun: Progress | None = None,
    keep: Callable[[Progress], None],
) -> Progress:
    """Train until the last step, or until validation has not improved for long.

    Args:
        model: The forecaster; its weights change.
        lesson: What it learns from.
        settings: How.
        begun: Where an earlier run stood; the same bits come out as without the interruption.
        keep: Told of the state after each evaluation.

    Returns:
        The state at the end.

    Raises:
        DataError: If the loss, or under DP a weight, stops being a finite number.
    """
    optimizer = optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    private = _private(model, optimizer, settings) if settings.dp else None
    now = begun or _first(model, optimizer, lesson)
    model.load_state_dict(now.weights)
    optimizer.load_state_dict(copy.deepcopy(now.optimizer))
    for step in range(now.step + 1, settings.steps + 1):
        if now.stale() >= settings.patience:
            break
        windows = lesson.batches.draw(stream(settings.seed, "forecaster", "batch", step))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        if private is None:
            finite = _plain_step(model, optimizer, windows, offsets=lesson.offsets, settings=settings)
        else:
            private.noise = stream(settings.seed, "forecaster", "noise", step)
            finite = _private_step(model, private, windows, offsets=lesson.offsets)
        if not finite:
            raise _not_finite(step, now, settings)
        if step % settings.evaluate_every == 0 or step == settings.steps:
            now = _advance(now, model, optimizer, current=evaluate(model, lesson, step=step))
            keep(now)
    return now


def epsilon(lesson: Lesson, settings: ForecastSettings, *, num_steps: int) -> float:
    """Return epsilon of a window after some steps: of one near a clean onset, which is drawn most often."""
    rate = max(lesson.batches.near_rate, lesson.batches.far_rate)
    mechanism = Mechanism(sigma=settings.privacy.noise_multiplier, sampling_rate=rate)
    return epsilon_of(mechanism, num_steps, delta=settings.privacy.delta)


def _not_finite(step: int, now: Progress, settings: ForecastSettings) -> DataError:
    return DataError(
        f"training stopped being finite at step {step} (loss or weights), expected finite numbers: "
        f"lower the learning rate ({settings.learning_rate:g}); the best weights are those of step {now.best.step}"
    )


def _first(model: Forecaster, optimizer: optim.Optimizer, lesson: Lesson) -> Progress:
    start, weights = evaluate(model, lesson, step=0), _copy(model)
    return Progress(
        history=(start,),
        best=start,
        best_weights=weights,
        weights=weights,
        optimizer=_state(optimizer),
    )


def _advance(now: Progress, model: Forecaster, optimizer: optim.Optimizer, *, current: Evaluation) -> Progress:
    weights = _copy(model)
    after = replace(now, history=(*now.history, current), weights=weights, optimizer=_state(optimizer))
    return replace(after, best=current, best_weights=weights) if current.loss < now.best.loss else after


def _state(optimizer: optim.Optimizer) -> dict[str, Any]:
    """Return a state that later steps do not change."""
    return copy.deepcopy(optimizer.state_dict())


def _copy(model: Forecaster) -> Weights:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _plain_step(
    model: Forecaster,
    optimizer: optim.Optimizer,
    windows: Windows,
    *,
    offsets: FloatArray,
    settings: ForecastSettings,
) -> bool:
    """Take a step on the mean over the expected batch, none on an empty one; say whether the loss was finite."""
    if len(windows.ahead_BS) == 0:
        return True
    optimizer.zero_grad()
    loss = window_losses(model, windows, offsets=offsets).total_B.sum() / settings.batch_size
    if not bool(torch.isfinite(loss)):
        return False
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    return True


def _private(model: Forecaster, optimizer: optim.Optimizer, settings: ForecastSettings) -> PrivateOptimizer:
    return private_optimizer(model, optimizer, privacy=settings.privacy, expected_batch=settings.batch_size)


def _private_step(model: Forecaster, private: PrivateOptimizer, windows: Windows, *, offsets: FloatArray) -> bool:
    """Take a DP-SGD step, and say whether the weights are finite: the loss is not for anyone to see."""
    size = len(windows.ahead_BS)
    for start in range(0, max(size, 1), CHUNK):
        if size == 0:
            empty_grad_samples(model)
        else:
            with per_sample_gradients(model):
                losses = window_losses(model, windows.part(start, start + CHUNK), offsets=offsets)
                losses.total_B.sum().backward()
            drop_non_finite(model)
        private.signal_skip_step(do_skip=start + CHUNK < size)
        private.step()
        private.zero_grad()
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
