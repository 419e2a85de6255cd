"""Sound tasks: unusual, and right in everything that training relies on.

`SOUND` maps a name to the task and the settings of its training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear
from nerv_fl.privacy.recurrent import LSTM
from nerv_fl.types import IntArray
from tests.client.faulty_tasks import Tokens, stack
from tests.client.toy_task import WIDTH, Arrays, Rows, Toy

SOUND: dict[str, tuple[type[Toy], Mapping[str, Any]]] = {}


def sound(name: str, **training: object) -> Any:
    """Register a sound task."""

    def register(kind: type[Toy]) -> type[Toy]:
        SOUND[name] = kind, training
        return kind

    return register


SOUND["a small network"] = Toy, {}
SOUND["part of it trained"] = Toy, {"trainable": "2.*"}


@sound("a small network, with hooks", dp_engine="opacus")
class PlainLayers(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))


@sound("layer norm without parameters")
class NormWithoutParameters(Toy):
    def build(self) -> nn.Module:
        return stack(LayerNorm(8, elementwise_affine=False))


@sound("layer norm without bias")
class NormWithoutBias(Toy):
    def build(self) -> nn.Module:
        return stack(LayerNorm(8, bias=False), nn.Tanh())


@sound("group norm, with hooks", dp_engine="opacus")
class Group(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1))


@sound("no biases")
class NoBiases(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(Linear(WIDTH, 8, bias=False), nn.Tanh(), Linear(8, 1, bias=False))


@sound("one parameter")
class OneParameter(Toy):
    def build(self) -> nn.Module:
        return Linear(1, 1, bias=False)

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.x[:, :1])[:, 0]
        return output


@sound("embedding with a padding row")
class Padded(Toy):
    def build(self) -> nn.Module:
        return Tokens(Embedding(3, WIDTH, padding_idx=0))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = model(batch.tokens)
        return output


@sound("embedding with a padding row, with hooks", dp_engine="opacus")
class PaddedWithHooks(Padded):
    def build(self) -> nn.Module:
        return Tokens(nn.Embedding(3, WIDTH, padding_idx=0))


class Recurrent(nn.Module):
    """An LSTM over the four numbers of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = LSTM(1, 3, num_layers=2)
        self.out = Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.unsqueeze(2))
        output: Tensor = self.out(states[:, -1])
        return output


@sound("LSTM")
class OverTime(Toy):
    def build(self) -> nn.Module:
        return Recurrent()


class Frozen(nn.Module):
    """A frozen layer before a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Linear(WIDTH, 8), Linear(8, 1)
        self.first.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(torch.tanh(self.first(x)))
        return output


@sound("frozen layer")
class FrozenLayer(Toy):
    def build(self) -> nn.Module:
        return Frozen()


class Tied(nn.Module):
    """One linear layer that is applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = Linear(WIDTH, WIDTH), Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(torch.tanh(self.layer(torch.tanh(self.layer(x)))))
        return output


@sound("tied weights")
class TiedWeights(Toy):
    def build(self) -> nn.Module:
        return Tied()


@sound("dropout with masks from the task's generator")
class OwnMasks(Toy):
    def draw(self, data: Arrays, samples: IntArray, rng: np.random.Generator) -> Rows:
        rows = self.read(data, samples)
        kept = torch.from_numpy(rng.random(rows.x.shape) < 0.5)
        return rows._replace(x=rows.x * kept)


@sound("dropout that is off in training", trainable="0.*")
class NoDrop(Toy):
    def build(self) -> nn.Module:
        return stack(nn.Dropout(0.0))


@sound("constant buffers")
class Scaled(Toy):
    def build(self) -> nn.Module:
        model = super().build()
        model.register_buffer("scale", torch.arange(4.0))
        return model

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        return super().predict(model, batch._replace(x=batch.x * model.scale))  # type: ignore[operator]


@sound("large losses")
class Large(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return 1e6 * super().losses(model, batch)


@sound("losses of a classifier, with further measures")
class Classifier(Toy):
    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        wanted = (batch.y > 0).float()
        return F.binary_cross_entropy_with_logits(self.predict(model, batch), wanted, reduction="none")

    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        wrong = (self.predict(model, batch) > 0) != (batch.y > 0)
        return {"loss": self.losses(model, batch), "error": wrong}


class Convolution(nn.Module):
    """A convolution over the four numbers of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(1, 2, 3), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(torch.tanh(self.conv(x.unsqueeze(1))).flatten(1))
        return output


@sound("convolution, with hooks", dp_engine="opacus")
class Convolved(Toy):
    def build(self) -> nn.Module:
        return Convolution()
