"""Causes and remedies, in words, for the messages of the preflight: what is known of a model's layers."""

from torch import nn


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


def gradient_hint(owner: nn.Module) -> str:
    """Return what to do about a layer whose per-sample gradients are wrong."""
    if getattr(owner, "scale_grad_by_freq", False):
        return ": scale_grad_by_freq=True divides by how often a token occurs in the whole batch; leave it False"
    return ": dimension 0 of every layer's input must be the sample, and weights may be used in their own layer alone"
