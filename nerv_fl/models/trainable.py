"""Which parameters a federated round trains: the fewer, the less noise.

DP-SGD adds noise to every coordinate it trains, sqrt(P) sigma C in all, whatever that coordinate had to learn. A round
that trains only what must differ between public data and the nodes' keeps more signal at the same epsilon. The rest
stands still: nodes send exact zeros there, and the server moves nothing there either. A parameter that the task's
`build` froze (``requires_grad_(False)``) stays frozen, whatever the patterns say.

Source: Bu, Wang, Zha and Karypis, "Differentially private bias-term fine-tuning of foundation models", 2024 (which
trains the biases alone).

Shapes: P parameters.
"""

from fnmatch import fnmatchcase

import numpy as np
from torch import nn

from nerv_fl.errors import ConfigError
from nerv_fl.types import BoolArray
from nerv_fl.validation import nearest


def train_only(model: nn.Module, patterns: str) -> None:
    """Freeze every parameter that matches none of the patterns.

    Args:
        model: Model as its task built it, changed in place.
        patterns: Names with wildcards, between spaces: ``"positions.* *.bias"``.

    Raises:
        ConfigError: If a pattern matches no parameter, or only frozen ones.

    >>> layer = nn.Linear(2, 1)
    >>> train_only(layer, "*bias")
    >>> layer.weight.requires_grad, layer.bias.requires_grad
    (False, True)
    """
    chosen = frozenset(_chosen(model, patterns))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def trained_P(model: nn.Module, patterns: str) -> BoolArray | None:  # noqa: N802
    """Return which of a model's coordinates a round may move, bool (P,), or None if all.

    Args:
        model: Model as its task built it; it is left unchanged.
        patterns: As for `train_only`.

    Raises:
        ConfigError: If a pattern matches no parameter, or only frozen ones.

    >>> trained_P(nn.Linear(2, 1), "bias").tolist()
    [False, False, True]
    """
    chosen = frozenset(_chosen(model, patterns))
    parts = [np.full(item.numel(), name in chosen) for name, item in model.named_parameters()]
    moves_P = np.concatenate(parts)
    return None if moves_P.all() else moves_P


def num_trained(moves_P: BoolArray | None, num_parameters: int) -> int:
    """Return how many of a model's P coordinates a round may move."""
    return num_parameters if moves_P is None else int(np.count_nonzero(moves_P))


def _chosen(model: nn.Module, patterns: str) -> list[str]:
    """Return the names of the parameters that match and are not frozen."""
    names = [name for name, _ in model.named_parameters()]
    free = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for pattern in patterns.split():
        if not _matching(names, pattern):
            raise ConfigError(
                f"training.trainable holds {pattern!r}, expected names of parameters{nearest(pattern, choices=names)}"
            )
        if not _matching(free, pattern):
            raise ConfigError(
                f"training.trainable holds {pattern!r}, which matches only parameters that the task's build() freezes "
                f"(requires_grad is False): {', '.join(_matching(names, pattern))}; expected at least one that it "
                "leaves trainable"
            )
    return [name for name in free if any(fnmatchcase(name, pattern) for pattern in patterns.split())]


def _matching(names: list[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]
