"""Which parameters a federated round trains: the fewer, the less noise.

DP-SGD adds noise to every coordinate it trains, sqrt(P) sigma C in all, whatever that coordinate had to learn. A round
that trains only what must differ between public data and the nodes' keeps more signal at the same epsilon. The rest
stands still: nodes send exact zeros there, and the server moves nothing there either.

Source: Bu, Wang, Zha and Karypis, "Differentially private bias-term fine-tuning of foundation models", 2024 (which
trains the biases alone).

Shapes: P parameters.
"""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import nn

from nerv_fl.arrays import BoolArray
from nerv_fl.checks import nearest
from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset

EVERYTHING: Final = "*"


def train_only(model: nn.Module, patterns: str) -> None:
    """Have gradients formed for the parameters that match, and for no other.

    Args:
        model: Model, changed in place.
        patterns: Names with wildcards, between spaces: ``"positions.* *.bias"``.

    Raises:
        ConfigError: If a pattern matches no parameter.

    >>> layer = nn.Linear(2, 1)
    >>> train_only(layer, "*bias")
    >>> layer.weight.requires_grad, layer.bias.requires_grad
    (False, True)
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns.split():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"training.trainable holds {pattern!r}, expected names of parameters{nearest(pattern, choices=names)}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns.split()))


def trainable_P(config: RunConfig) -> BoolArray | None:  # noqa: N802
    """Return which coordinates of the encoder a round may move, bool (P,), or None if all: read-only, made once."""
    if config.training.trainable.split() == [EVERYTHING]:
        return None
    return _trainable_P(config.model.preset, readout=config.model.readout, patterns=config.training.trainable)


def num_trained(config: RunConfig, num_parameters: int) -> int:
    """Return how many of a model's P coordinates a round may move."""
    moves_P = trainable_P(config)
    return num_parameters if moves_P is None else int(np.count_nonzero(moves_P))


@lru_cache(maxsize=8)
def _trainable_P(preset: str, *, readout: str, patterns: str) -> BoolArray:  # noqa: N802
    with torch.device("meta"):
        encoder = Encoder(get_preset(preset), readout=readout)
    train_only(encoder, patterns)
    moves_P = np.concatenate([np.full(item.numel(), item.requires_grad) for item in encoder.parameters()])
    moves_P.setflags(write=False)
    return moves_P
