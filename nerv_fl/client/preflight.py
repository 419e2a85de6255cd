"""Preflight of a task: the properties that training, its privacy guarantee and evaluation rely on.

DP-SGD bounds what one record can change only if the loss of a sample depends on that sample and the weights alone. A
model with batch statistics, a loss standardised over the batch or a layer whose gradient the engine gets wrong still
trains, and its epsilon is then wrong without any other symptom. `check_task` runs a task on a handful of samples and
raises a `TaskError` for the first property that does not hold:

    model       the same in every process, float32, every parameter drawn from the generator that is given
    data        as many samples as requested, the same whenever they are read, none where none are drawn
    losses      shape (B,), finite, the same alone and in any company and order
    state       a pass changes no parameter, buffer or attribute, and draws from no global generator
    gradients   every trained parameter gets each sample's gradient, equal to that of plain autograd
    clipping    removing one unit moves the clipped sum by at most the clip, in the engine that trains
    evaluation  measures are finite, repeatable, and the same for any chunk size

Comparisons are in float32: a dependence between samples below `VALUE_TOLERANCE` of a loss can pass.

Source: Abadi et al., "Deep learning with differential privacy", 2016, section 3.1 (the sensitivity of the sum).

Shapes: B samples, P parameters.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.client.hints import backward_hint, drawers, form_hint, gradient_hint, mixers
from nerv_fl.client.local_training import Trainer
from nerv_fl.client.task_state import attributes_of_modules, changed_names, is_same, state_of
from nerv_fl.errors import NervError, TaskError
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.models.influence import flat_gradient, sample_gradients
from nerv_fl.models.trainable import train_only
from nerv_fl.privacy.layers import PerSampleLayer
from nerv_fl.rng import global_generators, global_generators_reseeded, stream, torch_stream
from nerv_fl.tasks.metrics import Measured
from nerv_fl.tasks.registry import AnyTask
from nerv_fl.tasks.user_code import describe
from nerv_fl.types import IntArray

NUM_SAMPLES: Final = 6
"""Samples of a check: two show a dependence on the batch; a few more make agreement by chance unlikely."""

NUM_UNITS: Final = 8
"""Units of a clipped sum: what one unit moves in all the others adds up."""

LARGE_MODEL: Final = 5_000_000
"""Parameters above which two samples are used: a pass of the largest preset takes 15 seconds a sample."""

VALUE_TOLERANCE: Final = 1e-4
"""Relative difference of two float32 evaluations of one loss: batches of other sizes run through other kernels."""

VALUE_FLOOR: Final = 1e-5

GRADIENT_TOLERANCE: Final = 1e-3
"""Length of the difference of two float32 gradients of one sample, relative to the gradient."""

GRADIENT_FLOOR: Final = 1e-5

CLIP_TOLERANCE: Final = 1e-4

T = TypeVar("T")


def _no_hint(_error: Exception) -> str:
    return ""


Losses = Callable[[Any, Any], Tensor]


def check_task(task: AnyTask, data: Any, samples: IntArray, *, theta_P: Tensor | None = None) -> None:
    """Raise unless a task has every property that training and evaluation rely on.

    Args:
        task: Task under the run's settings.
        data: Open data file of the task.
        samples: int64 [n], n >= 2: samples in it, in the order in which units follow each other. A few are read.
        theta_P: Weights to check at, float32 (P,); freshly drawn ones if None.

    Raises:
        TaskError: If a property does not hold, naming it, where it fails, and the remedy.
        ConfigError: If `training.trainable` contradicts the model.
    """
    check = _Preflight(task, data, samples, theta_P=theta_P)
    batch = check.data()
    check.losses(batch)
    check.company(batch)
    check.drawn_rows()
    check.parts(batch)
    check.gradients(batch)
    check.clipping()
    check.evaluation(batch)


class _Preflight:
    """The checks, each a method; a later one relies on what an earlier one has shown."""

    def __init__(self, task: AnyTask, data: Any, samples: IntArray, *, theta_P: Tensor | None) -> None:
        self._task = task
        self._data = data
        self._samples = samples
        self._model = self._checked_model()
        self._theta_P = get_flat(self._model).detach().clone() if theta_P is None else theta_P
        set_flat(self._model, self._theta_P)
        self._is_large = len(self._theta_P) > LARGE_MODEL
        self._few = _with_neighbour(samples, count=2 if self._is_large else NUM_SAMPLES)
        self._trainer = Trainer(task)

    # --- model --------------------------------------------------------------------------------------------------------

    def _checked_model(self) -> nn.Module:
        first, second = self._built(), self._built()
        self._require_equal("parameter", dict(first.named_parameters()), dict(second.named_parameters()))
        self._require_equal("buffer", dict(first.named_buffers()), dict(second.named_buffers()))
        self._require_constant(attributes_of_modules(first), attributes_of_modules(second))
        for name, parameter in first.named_parameters():
            if parameter.dtype != torch.float32:
                self._fail(
                    f"parameter {name!r} is {parameter.dtype}, expected torch.float32, as updates are: "
                    "return model.float() from build()"
                )
        train_only(first, self._task.config.training.trainable)
        return first

    def _built(self) -> nn.Module:
        # Layers of torch draw their first weights from the global generator when they are made: that is allowed, as
        # draw_parameters() replaces them. Each call continues the generator, so what is not replaced differs.
        model = self._run("build()", self._task.build)
        if not isinstance(model, nn.Module):
            self._fail(f"build() returns a {type(model).__name__}, expected a torch.nn.Module")
        if not any(True for _ in model.parameters()):
            self._fail("build() returns a model without parameters, expected at least one to train")
        with self._watched("draw_parameters()"):
            self._task.draw_parameters(model, torch_stream(0, "preflight"))
        return model

    def _require_equal(self, kind: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        if list(first) != list(second):
            self._fail(f"build() gives {kind}s {list(first)}, then {list(second)}, expected the same at every call")
        for name, tensor in first.items():
            if tensor.shape == second[name].shape and is_same(tensor.detach(), second[name].detach()):
                continue
            remedy = "draw it in draw_parameters() from the generator" if kind == "parameter" else "make it a constant"
            self._fail(
                f"{kind} {name!r} differs between two models of build() and draw_parameters(), expected the same "
                f"numbers in every process: {remedy}"
            )

    def _require_constant(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        for name in changed_names(first, second):
            self._fail(
                f"{name} differs between two models of build(), expected the same in every process: make it a constant"
            )

    # --- data ---------------------------------------------------------------------------------------------------------

    def data(self) -> Any:
        """Check that samples are read as requested, and return the batch of the few."""
        self._run("size_of()", lambda: self._task.size_of(self._data))
        none = self._few[:0]
        batch, drawn = self._read(self._few), self._draw(self._few)
        empty = self._draw(none, what="draw() of no samples (a Poisson sample may be empty)")
        part = self._run("part(1, 2) of a batch", lambda: batch.part(1, 2))
        counts = {"read()": (batch, len(self._few)), "draw()": (drawn, len(self._few))}
        counts |= {"draw() of no samples": (empty, 0), "part(1, 2) of a batch": (part, 1)}
        for what, (found, expected) in counts.items():
            if not hasattr(found, "num_samples"):
                self._fail(f"{what} gives a {type(found).__name__}, expected a batch with num_samples and part()")
            if found.num_samples != expected:
                self._fail(f"{what} gives num_samples = {found.num_samples!r}, expected {expected}")
        return batch

    def _read(self, samples: IntArray) -> Any:
        with self._watched("read()"):
            return self._task.read(self._data, samples.copy())

    def _draw(self, samples: IntArray, *, what: str = "draw()") -> Any:
        """Return a drawn batch, every time from the same generator."""
        with self._watched(what):
            return self._task.draw(self._data, samples.copy(), stream(0, "preflight", "draw"))

    # --- losses -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Any) -> None:
        """Check the losses of a batch, of a drawn one, and of the same samples once more."""
        self._model.train()
        first = self._losses("losses()", batch)
        drawn = self._draw(self._few)
        twice = [self._losses("losses() of a drawn batch", drawn) for _ in range(2)]
        again = [self._losses("losses()", self._read(self._few)), self._losses("losses()", self._draw(self._few))]
        with global_generators_reseeded():
            reseeded = self._losses("losses()", self._draw(self._few))
        for before, after in ((first, again[0]), (twice[0], twice[1]), (twice[0], again[1]), (twice[0], reseeded)):
            if not torch.equal(before, after):
                self._fail(
                    f"losses of the same samples are {_few(before)}, then {_few(after)} (they differ by up to "
                    f"{float((before - after).abs().max()):.3g}), expected the same bits: read(), draw(), the model or "
                    "the loss changes its batch, carries something from one pass to the next, or draws from a "
                    "generator other than the one that draw() is given"
                )

    def company(self, batch: Any) -> None:
        """Check each sample's loss alone, beside one other, and in another order."""
        together, count = self._losses("losses()", batch), batch.num_samples
        alone = [self._losses("losses() of one sample", batch.part(row, row + 1)) for row in range(count)]
        tail = self._losses("losses() of two samples", batch.part(count - 2, count))
        read = [self._losses("losses() of one sample", self._read(sample)) for sample in self._few[:, np.newaxis]]
        turned = self._losses("losses() in another order", self._read(self._few[::-1])).flip(0)
        for company, found, suspects in (
            ("alone", torch.cat(alone), "part() returns other rows, or the model or the loss mixes samples"),
            ("beside one other", tail, "part() returns other rows, or the model or the loss mixes samples"),
            ("read alone", torch.cat(read), "read(), the model or the loss mixes samples"),
            ("in reverse order", turned, "read() returns another order than requested, or something mixes samples"),
        ):
            expected = together[count - len(found) :]
            if _differ(found, expected):
                self._fail(
                    f"losses are {_few(expected)} in one batch and {_few(found)} {company}, expected the same: "
                    f"{suspects}, so clipping bounds nothing{mixers(self._model)}"
                )

    def drawn_rows(self) -> None:
        """Check that a row of a drawn batch depends on its own sample alone, and does so."""
        others = np.setdiff1d(self._samples, self._few)
        before = self._losses("losses() of a drawn batch", self._draw(self._few))
        for row in range(len(self._few)):
            changed = self._few.copy()
            changed[row] = others[len(others) // 2] if len(others) else self._few[row - 1]
            after = self._losses("losses() of a drawn batch", self._draw(changed))
            others_move = np.delete(np.arange(len(changed)), row)
            if _differ(after[others_move], before[others_move]):
                self._fail(
                    f"another sample in row {row} of draw() changes the losses of other rows, expected rows that "
                    "depend on their own sample alone, in the order requested: draw() mixes, resamples or reorders "
                    "samples, so clipping bounds nothing"
                )
            if torch.equal(after, before) and not self._equal_losses(self._few[row], changed[row]):
                self._fail(f"another sample in row {row} of draw() changes no loss, expected the requested samples")

    def _equal_losses(self, *samples: int) -> bool:
        first, second = (self._losses("losses()", self._read(np.array([sample]))) for sample in samples)
        return torch.equal(first, second)

    def parts(self, batch: Any) -> None:
        """Check one step's losses over the parts of a batch: a part must not see, or be spoilt by, those before it."""
        together = self._losses("losses()", batch)
        with self._watched("the losses of a step over several parts of a batch"):
            losses, found = self._task.objective(self._model), []
            for row in range(batch.num_samples):
                part = losses(batch.part(row, row + 1))
                part.sum().backward()
                found.append(part.detach())
            self._model.zero_grad(set_to_none=True)
        if _differ(torch.cat(found), together):
            self._fail(
                f"losses are {_few(together)} in one batch and {_few(torch.cat(found))} in parts of one step, expected "
                "the same: objective() carries something from one part to the next"
            )

    def _losses(self, what: str, batch: Any) -> Tensor:
        """Return the detached losses of a batch, (B,), after checking everything that one pass can show."""
        with self._watched(what):
            losses = self._task.objective(self._model)(batch)
        shape = _shape_of(losses)
        if shape != (batch.num_samples,):
            self._fail(
                f"{what} gives {shape} for {batch.num_samples} samples, expected shape ({batch.num_samples},): one "
                'loss for each sample (reduction="none", and no sum or mean over dimension 0)'
            )
        if not losses.is_floating_point():
            self._fail(f"{what} gives {losses.dtype}, expected floating-point losses")
        if not bool(torch.isfinite(losses).all()):
            self._fail(f"{what} gives {_few(losses)}, expected finite numbers")
        if not losses.requires_grad:
            self._fail(f"{what} depends on no trained parameter, expected a gradient: is something detached?")
        return losses.detach()

    # --- gradients and clipping ---------------------------------------------------------------------------------------

    def gradients(self, batch: Any) -> None:
        """Check the per-sample gradients of training and of evaluation against plain autograd of one sample alone."""
        engine = f"training.dp_engine {self._task.config.training.dp_engine!r}"
        expected = self._one_by_one(batch, _step_losses(self._task))
        with self._watched(f"the backward pass of {engine}", hint=self._backward_hint):
            found = self._trainer.form_gradients(self._theta_P, batch)
        self._require_formed(found, expected, batch=batch, engine=engine)
        self._compare(engine, {name: rows for name, rows in found.items() if rows is not None}, expected)
        self._model.eval()
        with self._watched("value_losses()", hint=self._backward_hint):
            blocks = list(sample_gradients(self._model, batch, losses=self._task.value_losses, chunk=len(self._few)))
        values = self._one_by_one(batch, self._task.value_losses)
        self._compare("the enclave", self._named(torch.from_numpy(np.concatenate(blocks))), values)

    def clipping(self) -> None:
        """Check that the clipped sum moves by at most C if one unit is removed; without a mechanism none is clipped."""
        privacy, size = self._task.config.privacy, self._task.config.records_per_unit
        if not privacy.is_private:
            return
        units_US = self._samples[: len(self._samples) // size * size].reshape(-1, size)
        units_US = _spread(units_US, count=2 if self._is_large else NUM_UNITS)
        limit = privacy.clip * (1 + CLIP_TOLERANCE)
        whole = self._clipped_sum(units_US)
        for row in range(len(units_US)):
            moved = float((whole - self._clipped_sum(np.delete(units_US, row, axis=0))).norm())
            if not moved <= limit:  # true of NaN as well
                self._fail(
                    f"the sum of clipped gradients moves by {moved:.3g} when one {privacy.unit} is removed, expected "
                    f"at most privacy.clip = {privacy.clip:g}: the model or the loss mixes samples"
                    f"{mixers(self._model)}"
                )

    def _clipped_sum(self, units_US: IntArray) -> Tensor:
        if not len(units_US):
            return torch.zeros_like(self._theta_P)
        batch = self._read(units_US.reshape(-1))
        with self._watched("a training step"):
            return self._trainer.clipped_sum(self._theta_P, batch)

    def _one_by_one(self, batch: Any, losses: Losses) -> dict[str, Tensor]:
        """Return each sample's gradient by plain autograd of that sample alone, (B, *shape) by parameter."""
        rows = []
        for row in range(batch.num_samples):
            with self._watched("the backward pass of one sample", hint=self._backward_hint):
                rows.append(flat_gradient(self._model, losses(self._model, batch.part(row, row + 1)).sum()))
        gradients = self._named(torch.stack(rows))
        for name, gradient in gradients.items():
            if not bool(torch.isfinite(gradient).all()):
                self._fail(f"the gradient of {name!r} is not finite for a sample, expected finite numbers")
        return gradients

    def _named(self, flat_BP: Tensor) -> dict[str, Tensor]:
        """Split flat gradients (B, P) by parameter; frozen ones are left out."""
        parameters = dict(self._model.named_parameters())
        parts = flat_BP.split([parameter.numel() for parameter in parameters.values()], dim=1)
        named = zip(parameters.items(), parts, strict=True)
        return {
            name: part.reshape(-1, *parameter.shape) for (name, parameter), part in named if parameter.requires_grad
        }

    def _require_formed(
        self, found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor], *, batch: Any, engine: str
    ) -> None:
        """Check that every trained parameter has per-sample gradients of the right shape and type."""
        for name, gradient in found.items():
            if gradient is None:
                self._fail(self._without_gradient(name, engine=engine, is_used=bool(expected[name].any())))
            shape = (batch.num_samples, *expected[name].shape[1:])
            if _shape_of(gradient) != shape or gradient.dtype != torch.float32:
                self._fail(
                    f"{engine} forms {gradient.dtype} {_shape_of(gradient)} as the per-sample gradient of {name!r}, "
                    f"expected torch.float32 {shape}{form_hint(gradient.dtype)}"
                )

    def _without_gradient(self, name: str, *, engine: str, is_used: bool) -> str:
        owner = self._owner(name)
        if not is_used:
            return (
                f"the losses do not depend on parameter {name!r} (of {type(owner).__name__}), expected every trained "
                "parameter to be used: remove it, or freeze it in build() with requires_grad_(False)"
            )
        if isinstance(owner, PerSampleLayer) or self._task.config.training.dp_engine == "opacus":
            return (
                f"{engine} forms no per-sample gradient of {name!r}: it is used outside of its layer's forward(), or "
                "in a pass that torch.utils.checkpoint runs again"
            )
        return (
            f"{engine} forms no per-sample gradient of {name!r}, a parameter of {type(owner).__name__}: use the layers "
            "of nerv_fl.privacy.layers or nerv_fl.privacy.recurrent, or set training.dp_engine = 'opacus'"
        )

    def _backward_hint(self, error: Exception) -> str:
        return backward_hint(self._model, error)

    def _owner(self, name: str) -> nn.Module:
        return self._model.get_submodule(name.rpartition(".")[0])

    def _compare(self, whose: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        """Check gradients against those of plain autograd, by the length of each sample's difference."""
        scale_B = torch.stack([rows.flatten(1).norm(dim=1) for rows in expected.values()]).norm(dim=0)
        if not scale_B.any() and any(rows.any() for rows in found.values()):
            self._fail(
                f"{whose} forms per-sample gradients where torch.autograd.grad() finds none of any parameter, expected "
                "the same: pass use_reentrant=False to torch.utils.checkpoint"
            )
        for name, rows in expected.items():
            error_B = (found[name].cpu() - rows.cpu()).flatten(1).norm(dim=1)
            if not bool((error_B <= GRADIENT_TOLERANCE * scale_B + GRADIENT_FLOOR).all()):  # true of NaN as well
                self._fail(
                    f"{whose} forms per-sample gradients of {name!r} that differ from plain autograd of one sample "
                    f"alone by {float(error_B.max()):.3g} (gradients have length {float(scale_B.max()):.3g}), expected "
                    f"the same{gradient_hint(self._owner(name))}"
                )

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation(self, batch: Any) -> None:
        """Check what held-out samples are measured by: finite, repeatable, the same for any chunk size."""
        self._model.eval()
        chunks = (batch.num_samples, batch.num_samples, 1)
        first, again, single = (self._measured(batch, chunk=chunk) for chunk in chunks)
        for name, column in first.items():
            if column.shape != (batch.num_samples,):
                self._fail(f"measure {name!r} has shape {column.shape}, expected ({batch.num_samples},)")
            if not np.isfinite(column).all():
                self._fail(f"measure {name!r} is {_few(torch.from_numpy(column))}, expected finite numbers")
            if not np.array_equal(column, again[name]):
                self._fail(
                    f"measure {name!r} of the same samples is {_few(torch.from_numpy(column))}, then "
                    f"{_few(torch.from_numpy(again[name]))}, expected the same bits in evaluation"
                )
            if _differ(torch.from_numpy(single[name]), torch.from_numpy(column)):
                self._fail(
                    f"measure {name!r} of a sample depends on the others of its chunk, expected one number for each "
                    f"sample alone{mixers(self._model)}"
                )

    def _measured(self, batch: Any, *, chunk: int) -> dict[str, np.ndarray[Any, Any]]:
        with self._watched("the evaluation"):
            measures = self._task.measure(self._model, batch, chunk=chunk)
            summary = self._task.summarise(measures)
            self._task.broken_condition(summary, summary, limits=self._task.config.gate)
            columns = dict(measures.columns) if isinstance(measures, Measured) else {}
            return {"loss": np.asarray(measures.loss_B)} | {name: np.asarray(item) for name, item in columns.items()}

    # --- running the task's code --------------------------------------------------------------------------------------

    def _run(self, what: str, call: Callable[[], T]) -> T:
        """Return what a call into the task returns; an exception becomes a TaskError."""
        try:
            return call()
        except NervError:
            raise
        except Exception as error:
            raise TaskError(f"task {self._task.config.task!r}: {what} raises {describe(error)}") from error

    @contextmanager
    def _watched(self, what: str, *, hint: Callable[[Exception], str] = _no_hint) -> Iterator[None]:
        """Run a call into the task; it may raise nothing, draw from no global generator and change no state."""
        model = getattr(self, "_model", None)
        before = state_of(model, self._task, self._data)
        generators = global_generators()
        try:
            yield
        except NervError:
            raise
        except Exception as error:
            message = f"task {self._task.config.task!r}: {what} raises {describe(error)}{hint(error)}"
            raise TaskError(message) from error
        for name, state in global_generators().items():
            if state != generators[name]:
                self._fail(
                    f"{what} draws from (or seeds) {name}, expected no global generator, or two runs of one seed differ"
                    f"{drawers(model)}: draw in draw() from the generator that it is given"
                )
        self._require_unchanged(what, before, state_of(model, self._task, self._data))

    def _require_unchanged(self, what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        for name in changed_names(before, after):
            self._fail(
                f"{what} changes {name}, expected a pass to leave everything as it was: it would carry one node's "
                "data into the next node and into evaluation; compute constants in build() or __init__()"
                f"{mixers(self._model) if 'buffer' in name else ''}"
            )

    def _fail(self, message: str) -> NoReturn:
        raise TaskError(f"task {self._task.config.task!r}: {message}")


def _step_losses(task: AnyTask) -> Losses:
    return lambda model, batch: task.objective(model)(batch)


def _spread(items: IntArray, *, count: int) -> IntArray:
    """Return at most `count` rows, evenly spread."""
    return items[np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(np.int64))]


def _with_neighbour(samples: IntArray, *, count: int) -> IntArray:
    """Return at most `count` samples, the first two adjacent (records of one chain), the others evenly spread."""
    return np.concatenate([samples[:1], _spread(samples[1:], count=count - 1)])


def _differ(found: Tensor, expected: Tensor) -> bool:
    """Return whether losses differ by more than the tolerance, or are not numbers."""
    return not bool(((found - expected).abs() <= VALUE_TOLERANCE * expected.abs() + VALUE_FLOOR).all())


def _few(losses: Tensor) -> str:
    """Return the first numbers of a vector, in words."""
    shown = ", ".join(f"{number:.5g}" for number in losses.detach().flatten()[:3].tolist())
    return f"[{shown}{', ...' if losses.numel() > 3 else ''}]"  # noqa: PLR2004


def _shape_of(item: object) -> tuple[int, ...] | str:
    return tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
