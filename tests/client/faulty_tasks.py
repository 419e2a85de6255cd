"""Faulty tasks: each breaks one property that training, its privacy or evaluation relies on."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.privacy.layers import Embedding, Linear
from nerv_fl.tasks.metrics import Measured
from nerv_fl.types import IntArray
from tests.client.faults import Faults
from tests.client.toy_task import WIDTH, Arrays, Rows, Toy

FAULTY = Faults()


def stack(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(Linear(WIDTH, 8), *layers, Linear(8, 1))


# --- samples that are mixed -------------------------------------------------------------------------------------------


@FAULTY.add(
    "batch norm without parameters", says=r"mixes samples.*1 is a BatchNorm1d|Expected more than 1 value|buffer"
)
class BatchNorm(Toy):
    def build(self) -> nn.Module:
        return stack(nn.BatchNorm1d(8, affine=False))


@FAULTY.add("batch norm without running statistics", says=r"Expected more than 1 value|mixes samples.*BatchNorm1d: use")
class BatchNormWithoutState(Toy):
    def build(self) -> nn.Module:
        return stack(nn.BatchNorm1d(8, affine=False, track_running_stats=False))


@FAULTY.add("losses standardised by the batch mean", says=r"losses are \[.* alone, expected the same: .* mixes samples")
class Standardised(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        losses = super().losses(model, batch)
        return losses / losses.mean().detach()


@FAULTY.add("features centred over the batch", says="mixes samples, so clipping bounds nothing")
class Centred(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().predict(model, batch._replace(x=batch.x - batch.x.mean(dim=0)))


@FAULTY.add("loss normalised over dimension 0", says="mixes samples, so clipping bounds nothing")
class SoftmaxOverBatch(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return -F.log_softmax(self.predict(model, batch), dim=0)


@FAULTY.add("contrast with the neighbour in the batch", says="mixes samples, so clipping bounds nothing")
class Contrast(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        predicted = self.predict(model, batch)
        return (predicted - predicted.roll(1)).square() + super().losses(model, batch)


@FAULTY.add("weights by the rank in the batch", says="mixes samples, so clipping bounds nothing")
class Ranked(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        losses = super().losses(model, batch)
        return losses * (1.0 + losses.argsort().argsort().float())


@FAULTY.add("normaliser by the size of the batch", says="mixes samples, so clipping bounds nothing")
class DividedByBatch(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch) / batch.num_samples


@FAULTY.add("only the gradient is mixed", says=r"per-sample gradients of .* differ from plain autograd")
class MixedGradient(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        losses = super().losses(model, batch)
        mean = losses.mean()
        return losses * (1.0 + mean - mean.detach())


@FAULTY.add("attention over the batch", says="mixes samples, so clipping bounds nothing")
class BatchAttention(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        scores = torch.softmax(batch.x @ batch.x.T, dim=1)
        return super().predict(model, batch._replace(x=scores @ batch.x))


@FAULTY.add("measure that mixes samples", says="measure 'rank' of a sample depends on the others of its chunk")
class MixedMeasure(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        losses = self.losses(model, batch)
        return {"loss": losses, "rank": losses.argsort().argsort().float()}


# --- shapes and numbers -----------------------------------------------------------------------------------------------


@FAULTY.add("mean over the batch", says=r"losses\(\) gives \(\) for 6 samples, expected shape \(6,\)")
class MeanLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return F.mse_loss(self.predict(model, batch), batch.y)


@FAULTY.add("a column of losses", says=r"losses\(\) gives \(6, 1\) for 6 samples, expected shape \(6,\)")
class ColumnLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch).unsqueeze(1)


@FAULTY.add("a loss that is a number", says=r"losses\(\) gives float for 6 samples")
class FloatLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch).sum().item()  # type: ignore[return-value]


@FAULTY.add("losses that are not a number", says=r"losses\(\) gives \[nan, .*\], expected finite numbers")
class NanLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch).neg().sqrt()


@FAULTY.add("losses that are infinite", says=r"losses\(\) gives \[inf, .*\], expected finite numbers")
class InfiniteLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch) / 0.0


@FAULTY.add("gradient that is not a number", says=r"gradient of '0.weight' is not finite|differ from plain autograd")
class NanGradient(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        predicted = self.predict(model, batch)
        return (predicted - predicted.detach()).square().sqrt() + super().losses(model, batch)


@FAULTY.add("detached losses", says=r"depends on no trained parameter, expected a gradient")
class DetachedLoss(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch).detach()


@FAULTY.add("measure that is infinite", says="measure 'error' is .*inf.*, expected finite numbers")
class InfiniteMeasure(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        losses = self.losses(model, batch)
        return {"loss": losses, "error": 1.0 / (losses - losses)}


@FAULTY.add("double precision", says=r"parameter '0.weight' is torch.float64, expected torch.float32")
class Double(Toy):
    def build(self) -> nn.Module:
        return super().build().double()


# --- state that is carried on -----------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Counts its passes in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x


@FAULTY.add(
    "buffer that counts passes", says=r"losses\(\) changes buffer '1.passes', expected a pass to leave everything"
)
class BufferChanged(Toy):
    def build(self) -> nn.Module:
        return stack(Counting())


class RunningMean(nn.Module):
    """Keeps a running mean in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(dim=0)
        return x


@FAULTY.add("running mean in an attribute", says=r"losses\(\) changes attribute 'mean' of module '1'")
class AttributeChanged(Toy):
    def build(self) -> nn.Module:
        return stack(RunningMean())


@FAULTY.add("memory in the task", says=r"losses\(\) changes attribute 'seen' of the task")
class TaskRemembers(Toy):
    seen = 0

    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        self.seen += batch.num_samples
        return super().losses(model, batch)


@FAULTY.add("embedding that renormalises itself", says=r"losses\(\) changes parameter 'table.weight'")
class MaxNorm(Toy):
    def build(self) -> nn.Module:
        return Tokens(Embedding(3, WIDTH, max_norm=0.1))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.tokens)
        return output


@FAULTY.add("data that change at every read", says="losses of the same samples are .*, then .*, expected the same bits")
class OwnGenerator(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        noise = np.random.default_rng().normal(size=len(samples)).astype(np.float32)
        rows = super().read(data, samples)
        return rows._replace(y=rows.y + torch.from_numpy(noise))


# --- global generators ------------------------------------------------------------------------------------------------


@FAULTY.add(
    "dropout", says=r"losses\(\) draws from \(or seeds\) torch's global generator.*\(1 is a Dropout\): draw in draw"
)
class Dropout(Toy):
    def build(self) -> nn.Module:
        return stack(nn.Dropout(0.5))


@FAULTY.add("noise from torch's generator", says=r"losses\(\) draws from \(or seeds\) torch's global generator")
class TorchNoise(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch) + torch.empty(batch.num_samples).uniform_()


@FAULTY.add("masks from NumPy's generator", says=r"draw\(\) draws from \(or seeds\) NumPy's global generator")
class NumpyMasks(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        np.random.shuffle(samples)  # noqa: NPY002
        return self.read(data, samples)


@FAULTY.add("choice from Python's generator", says=r"losses\(\) draws from \(or seeds\) Python's random module")
class PythonChoice(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, batch) + random.random()


@FAULTY.add("dropout in evaluation", says=r"the evaluation draws from \(or seeds\) torch's global generator")
class EvaluationDropout(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        return {"loss": F.dropout(self.losses(model, batch), 0.5, training=True)}


@FAULTY.add("seed set in a pass", says=r"losses\(\) draws from \(or seeds\) torch's global generator")
class SeedSet(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        torch.manual_seed(batch.num_samples)
        return super().losses(model, batch)


# --- the model --------------------------------------------------------------------------------------------------------


@FAULTY.add(
    "parameter that is not drawn", says=r"parameter '2.bias' differs between two models .*: draw it in draw_param"
)
class NotDrawn(Toy):
    def draw_parameters(self, model: nn.Module, generator: torch.Generator) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name != "2.bias":
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))


class RandomFeatures(nn.Module):
    """Multiplies by random signs that are drawn where it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.signs: Tensor
        self.register_buffer("signs", torch.empty(8).uniform_())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.signs


@FAULTY.add("random buffer", says=r"buffer '1.signs' differs between two models .*: make it a constant")
class RandomBuffer(Toy):
    def build(self) -> nn.Module:
        return stack(RandomFeatures())


@FAULTY.add("no parameters", says="build.. returns a model without parameters")
class NoParameters(Toy):
    def build(self) -> nn.Module:
        return nn.Tanh()


@FAULTY.add("no model", says=r"build\(\) returns a dict, expected a torch.nn.Module")
class NoModel(Toy):
    def build(self) -> nn.Module:
        return {}  # type: ignore[return-value]


@FAULTY.add("frozen layer named by training.trainable", says=r"build\(\) freezes .*: 0.weight, 0.bias", trainable="0.*")
class FrozenConflict(Toy):
    def build(self) -> nn.Module:
        model = super().build()
        model[0].requires_grad_(requires_grad=False)  # type: ignore[index]
        return model


# --- gradients --------------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Sums the embeddings of a sample's tokens."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, tokens: Tensor) -> Tensor:
        summed: Tensor = self.table(tokens).sum(dim=(1, 2))
        return summed


@FAULTY.add(
    "torch's linear layer", says=r"'layers' forms no per-sample gradient of '0.weight', a parameter of Linear: use"
)
class PlainLinear(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 1))


@FAULTY.add("scaled by frequency", says="differ from plain autograd.*scale_grad_by_freq=True divides by how often")
class ScaledByFrequency(Toy):
    def build(self) -> nn.Module:
        return Tokens(Embedding(3, WIDTH, scale_grad_by_freq=True))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.tokens)
        return output


@FAULTY.add(
    "scaled by frequency, with hooks", says="differ from plain autograd.*scale_grad_by_freq=True", dp_engine="opacus"
)
class ScaledByFrequencyWithHooks(ScaledByFrequency):
    """The same with the other engine."""


@FAULTY.add(
    "unused parameter", says=r"the losses do not depend on parameter '1.weight' \(of Linear\).*remove it, or freeze"
)
class Unused(Toy):
    def build(self) -> nn.Module:
        return nn.ModuleList([Linear(WIDTH, 1), Linear(3, 3)])

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model[0](batch.x)[:, 0]  # type: ignore[index]
        return output


@FAULTY.add(
    "weight used outside of its layer", says=r"'layers' forms no per-sample gradient of 'weight': it is used outside"
)
class Functional(Toy):
    def build(self) -> nn.Module:
        return Linear(WIDTH, 1, bias=False)

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        return F.linear(batch.x, model.weight)[:, 0]  # type: ignore[arg-type]


@FAULTY.add(
    "weight used in its layer and outside", says=r"per-sample gradients of 'weight' that differ from plain autograd"
)
class PartlyFunctional(Toy):
    def build(self) -> nn.Module:
        return Linear(WIDTH, 1, bias=False)

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.x)[:, 0] + F.linear(batch.x**2, model.weight)[:, 0]  # type: ignore[arg-type]
        return output


@FAULTY.add("samples in another dimension", says=r"per-sample gradient|differ from plain autograd|shape")
class Transposed(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(Linear(WIDTH, 8), nn.Tanh(), Linear(8, 1))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.x.unsqueeze(0))[0, :, 0]
        return output


@FAULTY.add("bare parameter", says=r"forms no per-sample gradient of 'scale', a parameter of Scaled")
class BareParameter(Toy):
    def build(self) -> nn.Module:
        return Scaled()


class Scaled(nn.Module):
    """A linear layer times a number that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(WIDTH, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.scale * self.linear(x)
        return output


# --- data -------------------------------------------------------------------------------------------------------------


@FAULTY.add(
    "fails for an empty Poisson sample", says=r"draw\(\) of no samples .* raises (ValueError|IndexError|RuntimeError)"
)
class NoEmptyBatch(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        return Rows(
            *(torch.stack([torch.from_numpy(column)[row] for row in samples]) for column in vars(data).values())
        )


@FAULTY.add("more samples than requested", says=r"read\(\) gives num_samples = 24, expected 6")
class ReadsEverything(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        return super().read(data, np.arange(len(data.y)))


class Whole(Rows):
    """A batch whose part is the whole."""

    def part(self, start: int, stop: int) -> "Rows":
        return self


@FAULTY.add("part of a batch is all of it", says=r"part\(1, 2\) of a batch gives num_samples = 6, expected 1")
class WholeParts(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        return Whole(*super().read(data, samples))


@FAULTY.add(
    "an error in the user's code",
    says=r"losses\(\) raises KeyError: 'target' \(.*faulty_tasks.py, line \d+, in losses\)",
)
class Raises(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().losses(model, {"features": batch}["target"])


@FAULTY.add(
    "an error in evaluation", says=r"the evaluation raises ZeroDivisionError: .* \(.*faulty_tasks.py, line \d+, in su"
)
class RaisesInSummary(Toy):
    def summarise(self, measures: Measured) -> Any:
        return super().summarise(measures) if 1 / len(measures.columns) else None
