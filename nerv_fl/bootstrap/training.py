"""One pretraining as it stands between two steps: weights, optimiser, random streams, and the best so far.

It advances step by step, and all of it can be taken out as a snapshot and put back, so that a resumed training goes on
with the same bits.

Shapes: P parameters.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, optim

from nerv_fl.bootstrap.gradient import Objective, Team, plain_gradient, private_gradient
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.bootstrap.schedule import cosine
from nerv_fl.config import RunConfig
from nerv_fl.models.device import usable_device
from nerv_fl.models.encoder import Encoder, centre, get_flat, set_flat
from nerv_fl.models.evaluate import EncoderMeasures, measure_samples, summarise
from nerv_fl.models.presets import Preset
from nerv_fl.models.weights import load_encoder
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.rng import stream, torch_stream

ALONE = Team()


@dataclass(frozen=True, kw_only=True)
class Point:
    """The measures on held-out chains after so many steps: one point of the curve."""

    step: int
    measures: EncoderMeasures


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a pretraining stands, without its weights.

    Attributes:
        step: Steps taken.
        best: The best point.
        curve: Every point, the start's first.
        waited: Evaluations since the best.
        stopped: Why no further step is taken before the last, or empty.
    """

    step: int
    best: Point
    curve: tuple[Point, ...]
    waited: int = 0
    stopped: str = ""


class Pretraining:
    """An encoder in training.

    Args:
        config: The run's settings.
        data: The public data.
        preset: Sizes of the encoder.
        team: Who shares each batch.
        start: Weights to begin with; the seed's random ones if left out.

    Raises:
        ConfigError: If the device does not exist.
        CheckpointError: If `start` holds another preset or read-out.
    """

    def __init__(
        self, config: RunConfig, data: PublicData, *, preset: Preset, team: Team = ALONE, start: Path | None = None
    ) -> None:
        settings = config.bootstrap
        device = usable_device(settings.device, name="bootstrap.device")
        self._config, self._settings, self._data, self._team = config, settings, data, team
        self.encoder = Encoder(preset, readout=config.model.readout, checkpoint_activations=settings.checkpointing)
        self._initialise(start)
        self.encoder.to(device)
        self.optimizer = optim.AdamW(
            self.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.batches = stream(config.seed, "bootstrap", "batches")
        self.noise = stream(config.seed, "bootstrap", "noise")
        self._heldout = data.heldout_batch().to(device)
        self._private = None
        if settings.dp:
            self._private = private_optimizer(
                self.encoder, self.optimizer, privacy=config.privacy, expected_batch=settings.batch_size
            )
            self._private.noise = self.noise
        self.best_P = get_flat(self.encoder)
        self._standing: Standing | None = None

    @property
    def standing(self) -> Standing:
        """How the pretraining stands; the first look measures the start."""
        if self._standing is None:
            start = Point(step=0, measures=self._measure())
            self._standing = Standing(step=0, best=start, curve=(start,))
        return self._standing

    @standing.setter
    def standing(self, standing: Standing) -> None:
        self._standing = standing

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        return bool(self.standing.stopped) or self.standing.step >= self._settings.steps

    def advance(self) -> Standing:
        """Take one step, evaluate if it is time to, and return how it stands."""
        before, settings = self.standing, self._settings
        step = before.step + 1
        loss = self._descend(step)
        if not math.isfinite(loss):
            stopped = f"the loss was {loss} at step {step}, expected a finite number: lower bootstrap.learning_rate"
            self.standing = Standing(
                step=step, best=before.best, curve=before.curve, waited=before.waited, stopped=stopped
            )
        elif step % settings.evaluate_every == 0 or step == settings.steps:
            self.standing = self._evaluated(before, Point(step=step, measures=self._measure()))
        else:
            self.standing = Standing(step=step, best=before.best, curve=before.curve, waited=before.waited)
        return self.standing

    def finish(self) -> EncoderMeasures:
        """Put the best weights into the encoder, centre it, and return its measures on held-out chains."""
        set_flat(self.encoder, self.best_P)
        centre(self.encoder)
        return self._measure()

    def _initialise(self, start: Path | None) -> None:
        self.encoder.reset_parameters(torch_stream(self._config.seed, "bootstrap", "weights"))
        with torch.no_grad():
            bias_K = torch.from_numpy(self._data.baselines.unigram_K).float()
            self.encoder.balance_head.bias.copy_(bias_K)
        if start is not None:
            load_encoder(start, self.encoder)

    def _descend(self, step: int) -> float:
        """Take a step and return the batch's loss; under DP no loss is looked at, and it counts as finite."""
        settings, loss = self._settings, 0.0
        objective = Objective(
            settings=settings,
            movement_floor=self._data.movement_floor,
            with_drift=step % settings.drift_every == 0,
            team=self._team,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * cosine(step - 1, settings)
        batch = self._data.draw(self.batches)
        if self._private is not None:
            private_gradient(self.encoder, self._private, batch=batch, objective=objective)
        else:
            loss = plain_gradient(self.encoder, batch, objective=objective)
        if math.isfinite(loss):
            self.optimizer.step()
        return loss

    def _evaluated(self, before: Standing, point: Point) -> Standing:
        settings, curve = self._settings, (*before.curve, point)
        if point.measures.loss < before.best.measures.loss:
            self.best_P = get_flat(self.encoder)
            return Standing(step=point.step, best=point, curve=curve)
        waited, stopped = before.waited + 1, ""
        if not point.measures.finite:
            loss = point.measures.loss
            stopped = f"the held-out loss was {loss} at step {point.step}, expected a finite number"
            stopped += ": lower bootstrap.learning_rate"
        elif settings.patience and waited >= settings.patience:
            stopped = f"no better held-out loss in {waited} evaluations up to step {point.step}"
        return Standing(step=point.step, best=before.best, curve=curve, waited=waited, stopped=stopped)

    def _measure(self) -> EncoderMeasures:
        chunk = min(self._config.enclave.chunk, self._settings.micro_batch)
        floor = self._data.movement_floor
        return summarise(measure_samples(self.encoder, self._heldout, movement_floor=floor, chunk=chunk))


def moments(optimizer: optim.Optimizer) -> tuple[int, Tensor, Tensor]:
    """Return Adam's step count and both moments, float32 (P,); zeros before the first step."""
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    states = [optimizer.state.get(item, {}) for item in parameters]
    steps = int(states[0]["step"]) if states[0] else 0
    first, second = (
        torch.cat(
            [
                (state[name] if state else torch.zeros_like(item)).reshape(-1).cpu()
                for item, state in zip(parameters, states, strict=True)
            ]
        )
        for name in ("exp_avg", "exp_avg_sq")
    )
    return steps, first, second


def set_moments(optimizer: optim.Optimizer, steps: int, *, first_P: Tensor, second_P: Tensor) -> None:
    """Give Adam the step count and the moments that `moments` returned."""
    optimizer.state.clear()
    if steps == 0:
        return
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    sizes = [item.numel() for item in parameters]
    for item, first, second in zip(parameters, first_P.split(sizes), second_P.split(sizes), strict=True):
        optimizer.state[item] = {
            "step": torch.tensor(float(steps)),
            "exp_avg": first.reshape(item.shape).to(item.device, copy=True),
            "exp_avg_sq": second.reshape(item.shape).to(item.device, copy=True),
        }
