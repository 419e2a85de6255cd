"""What is exported of a consensus predictor, and why the protocol's signature cannot be met.

    tokens int64 (races, events)             -> valid (races, 4), outcome (races, 5): logits
    headers (races, 4, 5)                       delta (races, 512)
    deltas (races, 4, 512), past (races, 4, 512)

Shapes: B races, L events, C = 4 candidates, H header fields, P past batches, D = 512.
"""

from collections.abc import Collection, Mapping
from typing import Final

import torch
from torch import Tensor

from nerv_fl.models.consensus import INPUTS, OUTPUTS
from nerv_fl.models.consensus_inputs import DELTA_WIDTH, HEADER
from nerv_fl.models.export.encoder_graphs import Graph, Port
from nerv_fl.models.predictor import Predictor
from nerv_fl.quorum import MAX_CANDIDATES, NO_OUTCOME, PAD_TOKEN, PAST
from nerv_fl.rng import torch_stream

_SHAPES: Final[Mapping[str, tuple[int | str, ...]]] = {
    "tokens": ("races", "events"),
    "headers": ("races", MAX_CANDIDATES, len(HEADER)),
    "deltas": ("races", MAX_CANDIDATES, DELTA_WIDTH),
    "past": ("races", PAST, DELTA_WIDTH),
    "valid": ("races", MAX_CANDIDATES),
    "outcome": ("races", NO_OUTCOME + 1),
    "delta": ("races", DELTA_WIDTH),
}


def predictor_graphs(model: Predictor) -> tuple[Graph, ...]:
    """Return what every format holds of a predictor."""
    return (
        Graph(
            name="predictor",
            module=model.eval(),
            inputs=tuple(
                Port(name=name, shape=_SHAPES[name], dtype="int64" if name == "tokens" else "float32")
                for name in INPUTS
            ),
            outputs=tuple(Port(name=name, shape=_SHAPES[name]) for name in OUTPUTS),
            example=_races(2, 8),
            other=_races(3, 40),
        ),
    )


def missing_adapter(names: Collection[str]) -> list[dict[str, object]]:
    """Return what a manifest of these files says of the protocol's signature: of TorchScript, and not to be met."""
    if "predictor.pt" not in names:
        return []
    return [
        {
            "signature": "forward_ts([int64 (1, L), bool (1, L)]) -> (1, 512)",
            "file": None,
            "missing": [
                "deltas of the candidates, float32 (1, 4, 512): the next delta is a weighted mean of them, and tokens "
                "alone do not determine it",
                "headers of the candidates, float32 (1, 4, 5)",
                "deltas of the last 4 finalised batches, float32 (1, 4, 512)",
                "the meaning of the protocol's 8,192 tokens: ours are 16 bits of kind, candidate, reputation bucket "
                "and validator",
            ],
            "notes": ["validity and outcome have no place in one tensor of (1, 512)"],
        }
    ]


def _races(races: int, events: int) -> tuple[Tensor, ...]:
    """Return inputs of the right kind: any tokens, the last of each race padding, and small deltas."""
    generator = torch_stream(0, "export", "predictor", races)
    tokens_BL = torch.randint(0, 5 << 12, (races, events), generator=generator)
    tokens_BL[:, -2:] = PAD_TOKEN
    headers_BCH = torch.rand(races, MAX_CANDIDATES, len(HEADER), generator=generator)
    headers_BCH[:, :, 0] = 1.0
    deltas_BCD = 0.01 * torch.randn(races, MAX_CANDIDATES, DELTA_WIDTH, generator=generator)
    past_BPD = 0.01 * torch.randn(races, PAST, DELTA_WIDTH, generator=generator)
    return tokens_BL, headers_BCH, deltas_BCD, past_BPD
