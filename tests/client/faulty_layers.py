"""Faulty tasks: layers and passes whose per-sample gradients no engine forms, and columns of the wrong kind."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nerv_fl.privacy.layers import Embedding, Linear
from tests.client.faults import Faults
from tests.client.toy_task import WIDTH, Rows, Toy

FAULTY = Faults()


class Reader(nn.Module):
    """Reads tokens with a layer that returns its output first, such as an LSTM or attention."""

    def __init__(self, layer: nn.Module, *, copies: int = 1, has_state: bool = False) -> None:
        super().__init__()
        self.table, self.layer, self.out = nn.Embedding(3, 4), layer, nn.Linear(4, 1)
        self._copies, self._has_state = copies, has_state

    def forward(self, tokens: Tensor) -> Tensor:
        output_BTD, state = self.layer(*[self.table(tokens)] * self._copies)
        prediction: Tensor = self.out(state[-1] if self._has_state else output_BTD[:, -1])
        return prediction


class OverTokens(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        prediction: Tensor = model(batch.tokens)[:, 0]
        return prediction


@FAULTY.add("torch's LSTM, with hooks", says="layer is a LSTM: use opacus.layers.DPLSTM", dp_engine="opacus")
class PlainLSTM(OverTokens):
    def build(self) -> nn.Module:
        return Reader(nn.LSTM(4, 4, batch_first=True))


@FAULTY.add("torch's GRU, with hooks", says="layer is a GRU: use opacus.layers.DPGRU", dp_engine="opacus")
class PlainGRU(OverTokens):
    def build(self) -> nn.Module:
        return Reader(nn.GRU(4, 4, batch_first=True), has_state=True)


@FAULTY.add(
    "torch's attention, with hooks",
    says="layer is a MultiheadAttention: use opacus.layers.DPMultiheadAttention",
    dp_engine="opacus",
)
class PlainAttention(OverTokens):
    def build(self) -> nn.Module:
        return Reader(nn.MultiheadAttention(4, 2, batch_first=True), copies=3)


@FAULTY.add(
    "attention inside a layer of torch",
    says="1.self_attn is a MultiheadAttention: use opacus.layers.DPMultiheadAttention",
    dp_engine="opacus",
)
class EncoderLayer(OverTokens):
    def build(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        return nn.Sequential(nn.Embedding(3, 4), layer, nn.Flatten(1), nn.Linear(12, 1))


@FAULTY.add(
    "torch's attention", says="no per-sample gradient of 'table.weight', a parameter of Embedding: use the layers"
)
class AttentionInLayers(PlainAttention):
    pass


@FAULTY.add(
    "sparse embedding", says=r"raises RuntimeError: .*sparse.*0 is a Embedding with sparse=True: leave it False"
)
class Sparse(OverTokens):
    def build(self) -> nn.Module:
        return nn.Sequential(Embedding(3, 4, sparse=True), nn.Flatten(1), Linear(12, 1))


@FAULTY.add("layers called by their functions", says="used outside of its layer's forward", dp_engine="opacus")
class Functional(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 1))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        layer: Any = model.get_submodule("0")
        output: Tensor = nn.functional.linear(batch.x, layer.weight, layer.bias)[:, 0]
        return output


@FAULTY.add(
    "checkpointing with hooks", says=r"or in a pass that torch\.utils\.checkpoint runs again", dp_engine="opacus"
)
class Checkpointed(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = checkpoint(model, batch.x, use_reentrant=False)[:, 0]
        return output


@FAULTY.add("checkpointing that autograd cannot follow", says=r"autograd\.grad\(\) finds none .*use_reentrant=False")
class Reentrant(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        output: Tensor = checkpoint(model, batch.x.clone().requires_grad_(), use_reentrant=True)[:, 0]
        return output


def in_bfloat16(model: nn.Module, batch: Rows) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output: Tensor = model(batch.x)[:, 0]
        return output


@FAULTY.add("autocast", says=r"raises RuntimeError: .*dtype.*: compute losses in float32, without autocast")
class Autocast(Toy):
    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        return in_bfloat16(model, batch)


@FAULTY.add("autocast, with hooks", says="forms torch.bfloat16 .*: compute losses in float32", dp_engine="opacus")
class AutocastWithHooks(Toy):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        return in_bfloat16(model, batch)


# --- columns ----------------------------------------------------------------------------------------------------------


@FAULTY.add("columns without the loss", says=r"columns\(\) gives the columns \['error'\], expected 'loss' among them")
class WithoutLoss(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        return {"error": self.losses(model, batch)}


@FAULTY.add("a column of NumPy", says=r"columns\(\) gives a ndarray as column 'error', expected a torch\.Tensor")
class ColumnOfNumpy(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        losses = self.losses(model, batch)
        return {"loss": losses, "error": losses.detach().numpy()}  # type: ignore[dict-item]


@FAULTY.add("columns without names", says=r"columns\(\) gives a Tensor, expected a mapping")
class WithoutNames(Toy):
    def columns(self, model: nn.Module, batch: Rows) -> Mapping[str, Tensor]:
        return self.losses(model, batch)  # type: ignore[return-value]
