"""Training the consensus predictor: soft outcomes of races played on, and the validity of their candidates.

    loss = - sum_o chance_o log p_o  +  mean over candidates of the cross-entropy of validity

AdamW on a cosine schedule, gradients clipped to length 1. A batch is all races of some shards, each cut off after some
of its votes. The best weights by held-out loss are kept; then both answers are calibrated on the same shards, by one
scale (and for validity one shift) that goes into the last layers.

Source: Hinton et al. 2015, Distilling the knowledge in a neural network, section 2 (soft targets); Guo et al. 2017, On
calibration of modern neural networks, section 4.2 (one scale); Platt 1999 (scale and shift).

Shapes: P parameters, B races, C candidates, O outcomes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn, optim

from nerv_fl.bootstrap.consensus_scores import Answers, answers
from nerv_fl.bootstrap.schedule import warm_cosine
from nerv_fl.bootstrap.soft_labels import Lesson, Lessons
from nerv_fl.data.consensus import RaceFile
from nerv_fl.models.consensus_inputs import RaceInputs
from nerv_fl.models.predictor import Predictor
from nerv_fl.quorum import CUTS
from nerv_fl.rng import torch_stream
from nerv_fl.types import FloatArray
from nerv_fl.validation import in_range

CLIP: Final = 1.0
TINY: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How the predictor is trained.

    Attributes:
        seed: Seed of weights, cuts and batches.
        steps: Optimiser steps.
        num_shards: Shards of a batch.
        learning_rate: Highest learning rate.
        warmup_steps: Steps up to it.
        weight_decay: AdamW's.
        evaluate_every: Steps between looks at the validation shards.
        patience: Evaluations without a better loss after which to stop; 0 for never.
        max_shards: Train shards used.
        heldout_shards: Validation shards used.
        rollouts: Continuations of each race and cut, from which the soft targets are counted.

    Raises:
        ConfigError: If one is out of range.
    """

    seed: int = 7
    steps: int = 3000
    num_shards: int = 2
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    evaluate_every: int = 250
    patience: int = 0
    max_shards: int = 100_000
    heldout_shards: int = 40
    rollouts: int = 16

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        for name in ("steps", "num_shards", "evaluate_every", "max_shards", "heldout_shards", "rollouts"):
            in_range(name, getattr(self, name), low=1, high=10**9)
        for name in ("seed", "warmup_steps", "patience", "weight_decay"):
            in_range(name, getattr(self, name), low=0, high=2**63 - 1)
        in_range("learning_rate", self.learning_rate, low=1e-9, high=1.0)


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Losses on held-out races after so many steps: of the outcome at half of the votes, and of validity, in nats."""

    step: int
    outcome: float
    valid: float

    @property
    def loss(self) -> float:
        """Their sum."""
        return self.outcome + self.valid


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How a training stands, without its weights.

    Attributes:
        step: Steps taken.
        best: The best evaluation; None before the first.
        curve: Every evaluation.
        waited: Evaluations since the best.
        stopped: Why no further step is taken before the last, or empty.
    """

    step: int = 0
    best: Heldout | None = None
    curve: tuple[Heldout, ...] = ()
    waited: int = 0
    stopped: str = ""


class Distillation:
    """A predictor in training.

    Args:
        config: How to train.
        lessons: The train shards.
        heldout: Measures the model.
    """

    def __init__(
        self, config: DistillConfig, lessons: Lessons, *, heldout: Callable[[Predictor, int], Heldout]
    ) -> None:
        self._config, self._lessons, self._heldout = config, lessons, heldout
        self.model = Predictor()
        self.model.reset_parameters(torch_stream(config.seed, "distill", "weights"))
        self.optimizer = optim.AdamW(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.best = copy_state(self.model)
        self.standing = Progress()

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        return bool(self.standing.stopped) or self.standing.step >= self._config.steps

    def advance(self) -> Progress:
        """Take one step, evaluate if it is time to, and return how it stands."""
        config, step = self._config, self.standing.step + 1
        loss = self._descend(step)
        if not math.isfinite(loss):
            reason = f"the loss was {loss} at step {step}, expected a finite number: lower the learning rate"
            self.standing = replace(self.standing, step=step, stopped=reason)
        elif step % config.evaluate_every == 0 or step == config.steps:
            self.standing = self._evaluated(self._heldout(self.model, step))
        else:
            self.standing = replace(self.standing, step=step)
        return self.standing

    def _descend(self, step: int) -> float:
        config = self._config
        for group in self.optimizer.param_groups:
            group["lr"] = warm_cosine(
                step, peak=config.learning_rate, warmup_steps=config.warmup_steps, steps=config.steps
            )
        self.optimizer.zero_grad()
        loss = lesson_loss(self.model, self._lessons.batch(step, num_shards=config.num_shards))
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
        return value

    def _evaluated(self, found: Heldout) -> Progress:
        before, curve = self.standing, (*self.standing.curve, found)
        if not math.isfinite(found.loss):
            reason = f"the held-out loss was {found.loss} at step {found.step}, expected a finite number"
            return replace(before, step=found.step, stopped=f"{reason}: lower the learning rate")
        if before.best is None or found.loss < before.best.loss:
            self.best = copy_state(self.model)
            return Progress(step=found.step, best=found, curve=curve)
        waited = before.waited + 1
        stopped = ""
        if self._config.patience and waited >= self._config.patience:
            stopped = f"no better held-out loss in {waited} evaluations up to step {found.step}"
        return Progress(step=found.step, best=before.best, curve=curve, waited=waited, stopped=stopped)


def lesson_loss(model: Predictor, lesson: Lesson) -> Tensor:
    """Return the loss of a batch, in nats."""
    valid_BC, outcome_BO = apply(model, lesson.inputs)
    outcome = -(lesson.chances_BO * F.log_softmax(outcome_BO, dim=1)).sum(dim=1).mean()
    present_BC = lesson.targets.present_BC
    return outcome + F.binary_cross_entropy_with_logits(
        valid_BC[present_BC], lesson.targets.valid_BC[present_BC].float()
    )


def apply(model: Predictor, inputs: RaceInputs) -> tuple[Tensor, Tensor]:
    """Return the logits of validity and of the outcome."""
    return model.logits(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)


def ask_heldout(model: Predictor, file: RaceFile, *, shards: list[int], table_AD: FloatArray) -> list[Answers]:
    """Return a model's answers on held-out shards, at each cut but the last, where the rule decides."""
    with torch.no_grad():
        return [
            answers(file, shards, cut=cut, table_AD=table_AD, logits=lambda inputs: apply(model, inputs))
            for cut in CUTS[:-1]
        ]


def heldout_losses(found: list[Answers], step: int) -> Heldout:
    """Return the mean cross-entropies of outcome and validity over some cuts."""
    outcome = [-_log(part.chance_BO[range(len(part.outcome_B)), part.outcome_B]).mean() for part in found]
    valid = [
        -_log(torch.where(_t(part.truth_N), _t(part.valid_N), 1 - _t(part.valid_N)).numpy()).mean() for part in found
    ]
    return Heldout(step=step, outcome=float(sum(outcome)) / len(found), valid=float(sum(valid)) / len(found))


def calibrate(model: Predictor, found: list[Answers]) -> tuple[float, float, float]:
    """Scale the outcome's logits, and scale and shift those of validity, so that they fit the answers best.

    Args:
        model: Changed in place: the scales go into its last layers.
        found: Its answers on held-out races.

    Returns:
        The outcome's scale, and the scale and shift of validity.
    """
    logits_BO = torch.cat([torch.log(_t(part.chance_BO) + TINY) for part in found])
    outcome_B = torch.cat([_t(part.outcome_B) for part in found])
    logits_N = torch.cat([torch.logit(_t(part.valid_N), eps=TINY) for part in found])
    truth_N = torch.cat([_t(part.truth_N).double() for part in found])

    def outcome_loss(x: FloatArray) -> float:
        return float(F.cross_entropy(math.exp(x[0]) * logits_BO, outcome_B))

    def valid_loss(x: FloatArray) -> float:
        return float(F.binary_cross_entropy_with_logits(math.exp(x[0]) * logits_N + x[1], truth_N))

    options = {"xatol": 1e-4, "fatol": 1e-7}
    outcome = math.exp(minimize(outcome_loss, [0.0], method="Nelder-Mead", options=options).x[0])
    scale, shift = minimize(valid_loss, [0.0, 0.0], method="Nelder-Mead", options=options).x.tolist()
    with torch.no_grad():
        for layer in (model.finalised, model.none):
            layer.weight.mul_(outcome)
            layer.bias.mul_(outcome)
        model.valid.weight.mul_(math.exp(scale))
        model.valid.bias.mul_(math.exp(scale)).add_(shift)
    return outcome, math.exp(scale), shift


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's weights, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _log(chance: FloatArray) -> FloatArray:
    return torch.log(_t(chance) + TINY).numpy()


def _t(array: object) -> Tensor:
    return torch.as_tensor(array)
