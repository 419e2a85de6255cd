"""More faulty tasks: samples mixed before the loss, parts of a step that see each other, and hidden state."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.config import RunConfig
from nerv_fl.types import IntArray
from tests.client.faults import Faults
from tests.client.faulty_tasks import stack
from tests.client.toy_task import WIDTH, Arrays, Rows, Toy

FAULTY = Faults()


@FAULTY.add("samples that are mixed when they are drawn", says=r"row 0 of draw\(\) changes the losses of other rows")
class Mixup(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        rows = self.read(data, samples)
        return rows._replace(x=0.3 * rows.x + 0.7 * rows.x.roll(1, 0))


@FAULTY.add("features standardised when they are drawn", says=r"draw\(\) changes the losses of other rows")
class StandardisedDraw(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        rows = self.read(data, samples)
        return rows._replace(x=rows.x - rows.x.mean(0)) if len(samples) else rows


@FAULTY.add(
    "samples drawn again with replacement", says=r"row \d of draw\(\) changes (no loss|the losses of other rows)"
)
class Resampled(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        return self.read(data, rng.choice(samples, size=len(samples)) if len(samples) else samples)


@FAULTY.add(
    "samples other than those requested", says=r"row 0 of draw\(\) changes no loss, expected the requested samples"
)
class OtherSamples(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        return self.read(data, rng.integers(0, len(data.y), size=len(samples)))


@FAULTY.add("samples in another order", says=r"draw\(\) mixes, resamples or reorders")
class Shuffled(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        return self.read(data, rng.permutation(samples))


@FAULTY.add(
    "targets scaled by their mean when they are read", says=r"read alone, expected the same: read\(\), the model"
)
class ScaledRead(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        rows = super().read(data, samples)
        return rows._replace(y=rows.y / (rows.y.abs().mean() + 1)) if len(samples) else rows


@FAULTY.add(
    "mean over the parts of a step", says=r"in parts of one step, expected the same: objective\(\) carries something"
)
class PartsMean(Toy):
    def objective(self, model: nn.Module) -> Callable[[Rows], Tensor]:
        seen: list[Tensor] = []

        def losses(batch: Rows) -> Tensor:
            own = self.losses(model, batch)
            base = sum(seen) / len(seen) if seen else torch.ones(())
            seen.append(own.detach().mean())
            return own / base

        return losses


@FAULTY.add(
    "one graph for all parts of a step", says="over several parts of a batch raises RuntimeError: .*second time"
)
class SharedGraph(Toy):
    def objective(self, model: nn.Module) -> Callable[[Rows], Tensor]:
        scale = torch.exp(torch.nn.Parameter(torch.ones(())))
        return lambda batch: self.losses(model, batch) * scale / scale.detach()


@FAULTY.add("targets compared within a chain", says="losses are .* in one batch and .* alone, expected the same")
class WithinChain(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        is_close = (batch.x[:, None, 0] - batch.x[None, :, 0]).abs() < 10
        mean = (is_close * batch.y).sum(1) / is_close.sum(1)
        return (self.predict(model, batch) - batch.y + 0.3 * mean).square()


@FAULTY.add("mean of the first batch, kept in a dict", says=r"losses\(\) changes attribute 'stats' of the task")
class KeptInDict(Toy):
    def __init__(self, config: RunConfig, constants: Mapping[str, Any]) -> None:
        super().__init__(config, constants)
        self.stats: dict[str, Tensor] = {}

    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        mean = self.stats.setdefault("mean", batch.y.mean())
        return (self.predict(model, batch) - batch.y + mean).square()


class Memory(nn.Module):
    """Keeps a mean in a long tensor inside a list."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = [torch.zeros(5000)]

    def forward(self, x: Tensor) -> Tensor:
        self.memory[0][100:108] = x.detach().mean(0)
        return x


@FAULTY.add("mean of the last batch, inside a list", says=r"losses\(\) changes attribute 'memory' of module '1'\[0\]")
class KeptInList(Toy):
    def build(self) -> nn.Module:
        return stack(Memory())


@FAULTY.add("mean of the first batch, kept with the data", says=r"read\(\) changes attribute 'mean' of the data")
class KeptWithData(Toy):
    def read(self, data: Arrays, samples: IntArray) -> Rows:
        rows = super().read(data, samples)
        mean: float = vars(data).setdefault("mean", float(rows.y.mean()))
        return rows._replace(y=rows.y - mean)


@FAULTY.add("a global generator whose state is put back", says="draws from a generator other than the one that draw")
class ForkedGenerator(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        with torch.random.fork_rng():
            mask = torch.empty(WIDTH).uniform_()
        return super().predict(model, batch._replace(x=batch.x * mask))


@FAULTY.add("measure that is no number for one sample alone", says="measure 'z' of a sample depends on the others")
class ScoreInChunk(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        losses = self.losses(model, batch)
        return {"loss": losses, "z": (losses - losses.mean()) / losses.std(correction=0)}


@FAULTY.add("layer that is frozen in a pass", says=r"losses\(\) changes requires_grad of '0.weight'")
class FrozenInPass(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        model.get_submodule("0").requires_grad_(False)
        return super().losses(model, batch)


@FAULTY.add("mode that is changed in a pass", says=r"losses\(\) changes the mode \(train or eval\) of the model")
class ModeInPass(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        model.eval()
        return super().losses(model, batch)


@FAULTY.add("random number where the model is built", says="attribute 'factor' of the model differs between two models")
class RandomAttribute(Toy):
    def build(self) -> nn.Module:
        model = super().build()
        model.factor = float(np.random.default_rng().normal())  # type: ignore[assignment]
        return model
