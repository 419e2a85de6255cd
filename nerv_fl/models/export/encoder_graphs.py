"""What an export computes: a module, the names and shapes of what goes in and comes out, and an example.

    encoder    tokens (T)                        -> vectors v_i(S) (A, D), table V (A, D)
               with the "mean" read-out          -> embedding E_live(S) (D), table (A, D)

The table depends on the weights alone: it is stored, not computed.

Shapes: T = 1 + 2A tokens of one state, A accounts, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nerv_fl.models.encoder import Encoder
from nerv_fl.rng import torch_stream


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: its name, its shape (a name where it is free), and its dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module to export.

    Attributes:
        name: Of the file, without its ending.
        module: Takes the inputs in order and returns the outputs, one tensor or a tuple.
        inputs: What goes in.
        outputs: What comes out.
        example: One tensor for each input.
        other: A second example; other in every dimension that is free.
        int8: Whether an int8 copy is made, too.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    example: tuple[Tensor, ...]
    other: tuple[Tensor, ...]
    int8: bool = True

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the module's outputs, without gradients."""
        with torch.no_grad():
            outputs = self.module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class EncoderOutputs(nn.Module):
    """One state's tokens to what the encoder says of it, with the table beside it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.table_AD: Tensor
        with torch.no_grad():
            self.register_buffer("table_AD", encoder.table())

    def forward(self, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return v_i(S), float32 (A, D), or E_live(S), float32 (D), with the "mean" read-out; and the table (A, D)."""
        hidden_BGTD = self.encoder.hidden(tokens_T[None, None])
        if self.encoder.readout == "mean":
            embedding_D: Tensor = self.encoder.out(hidden_BGTD.mean(dim=2))[0, 0]
            return embedding_D, self.table_AD
        return self.encoder.account_vectors(hidden_BGTD)[0, 0], self.table_AD


def encoder_graph(encoder: Encoder) -> Graph:
    """Return what is exported of an encoder."""
    preset = encoder.preset
    table = Port(name="table", shape=(preset.num_accounts, preset.width))
    is_mean = encoder.readout == "mean"
    first = Port(name="embedding", shape=(preset.width,)) if is_mean else Port(name="vectors", shape=table.shape)
    return Graph(
        name="encoder",
        module=EncoderOutputs(encoder).eval(),
        inputs=(Port(name="tokens", shape=(preset.num_tokens,), dtype="int64"),),
        outputs=(first, table),
        example=(encoder.blank_T.clone(),),
        other=(_state_tokens(encoder),),
    )


def _state_tokens(encoder: Encoder) -> Tensor:
    """Return the tokens of a state whose balances lie in any bucket."""
    preset, tokens_T = encoder.preset, encoder.blank_T.clone()
    generator = torch_stream(0, "export", preset.name)
    first_bucket, end = 1 + preset.num_accounts, preset.vocabulary
    tokens_T[2::2] = torch.randint(first_bucket, end, (preset.num_accounts,), generator=generator)
    return tokens_T
