"""Causes and remedies, in words, for the messages of the preflight: what is known of a model's layers."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

REPLACEMENTS: Final[Mapping[type[nn.Module], str]] = {
    nn.LSTM: "DPLSTM",
    nn.GRU: "DPGRU",
    nn.RNN: "DPRNN",
    nn.MultiheadAttention: "DPMultiheadAttention",
}
"""Layers whose per-sample gradients Opacus does not form, and those of `opacus.layers` that take their place."""


def mixers(model: nn.Module) -> str:
    """Return which modules use statistics of a batch, in words; empty if none is known to."""
    found = _modules_of(model, nn.modules.batchnorm._BatchNorm)
    return f" ({found}: use LayerNorm or GroupNorm)" if found else ""


def drawers(model: nn.Module | None) -> str:
    """Return which modules draw at random in training, in words; empty if none is known to."""
    found = _modules_of(model, nn.modules.dropout._DropoutNd, nn.RReLU) if model is not None else ""
    return f" ({found})" if found else ""


def _modules_of(model: nn.Module, *kinds: type[nn.Module]) -> str:
    named = model.named_modules()
    return ", ".join(f"{path} is a {type(module).__name__}" for path, module in named if isinstance(module, kinds))


def backward_hint(model: nn.Module, error: Exception) -> str:
    """Return what to do about a backward pass that raises; empty if nothing known is the cause."""
    for path, module in model.named_modules():
        for kind, replacement in REPLACEMENTS.items():
            if isinstance(module, kind):
                return f": {path} is a {kind.__name__}: use opacus.layers.{replacement}"
        if getattr(module, "sparse", False):
            return f": {path} is a {type(module).__name__} with sparse=True: leave it False"
    if "dtype" in str(error):
        return ": compute losses in float32, without autocast"
    return ""


def form_hint(dtype: torch.dtype) -> str:
    """Return what to do about per-sample gradients of another type or shape than the parameter's."""
    if dtype != torch.float32:
        return ": compute losses in float32, without autocast"
    return ": dimension 0 of every layer's input must be the sample"


def gradient_hint(owner: nn.Module) -> str:
    """Return what to do about a layer whose per-sample gradients are wrong."""
    if getattr(owner, "scale_grad_by_freq", False):
        return ": scale_grad_by_freq=True divides by how often a token occurs in the whole batch; leave it False"
    return ": dimension 0 of every layer's input must be the sample, and weights may be used in their own layer alone"
