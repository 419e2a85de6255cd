"""Back ends that form per-sample gradients; clipping, noise and accounting are Opacus' with each of them.

    layers    layers that form nothing else (`nerv_fl.privacy.layers`): close to the cost of a plain step, and blocks
              may be computed again in the backward pass (`training.checkpointing`)
    opacus    Opacus' hooks, which form the summed gradient as well: the reference

Inside an engine's context the backward pass of a summed loss leaves `grad_sample` (B, *parameter.shape) on every
parameter of the model. A new engine is one function and one line in `ENGINES`.

Shapes: B samples.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final, TypeAlias

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.embedding import compute_embedding_grad_sample
from torch import Tensor, nn

from nerv_fl.privacy.layers import Embedding, LayerNorm, Linear, Positions, per_sample_gradients, trained_parameters
from nerv_fl.privacy.recurrent import LSTM, RecentAverage

Engine: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Called for each batch; its context is that of the forward and the backward pass."""

Samples: TypeAlias = dict[nn.Parameter, Tensor]


def layers_engine(model: nn.Module) -> Engine:
    """Return the engine of a model whose layers can form per-sample gradients and nothing else."""
    return partial(per_sample_gradients, model)


def opacus_engine(model: nn.Module, *, force_functorch: bool = False) -> Engine:
    """Return Opacus' hooks on a model; outside of the engine's context there are none.

    Args:
        model: Built of the layers in `nerv_fl.models`; without activation checkpointing, under which a hook sees each
            activation twice.
        force_functorch: Have functorch form every gradient, in place of a rule for each layer.
    """
    GradSampleHooks.GRAD_SAMPLERS.update(_samplers())
    return partial(_hooked, model, force_functorch=force_functorch)


@contextmanager
def _hooked(model: nn.Module, *, force_functorch: bool) -> Iterator[None]:
    # Attaching hooks can fail at any layer, so it is undone like the rest: what stays attached fails the next batch.
    try:
        hooks = GradSampleHooks(model, loss_reduction="sum", strict=False, force_functorch=force_functorch)
        try:
            with warnings.catch_warnings():
                # Of an embedding, whose input is integers; functorch asks for autocast, which is off.
                warnings.filterwarnings("ignore", "Full backward hook is firing|In CPU autocast", UserWarning)
                yield
        finally:
            hooks.remove_hooks()
    finally:
        _detach_hooks(model)
        _forget_activations(model)


ENGINES: Final[Mapping[str, Callable[[nn.Module], Engine]]] = {"layers": layers_engine, "opacus": opacus_engine}
"""Every engine by its name in `training.dp_engine`."""


def _samplers() -> dict[type[nn.Module], Callable[[nn.Module, list[Tensor], Tensor], Samples]]:
    """Return Opacus' rules of the layers that ours extend, and rules for those it does not know."""
    known = GradSampleHooks.GRAD_SAMPLERS
    return {
        Linear: known[nn.Linear],
        LayerNorm: known[nn.LayerNorm],
        Embedding: _sample_embedding,
        nn.Embedding: _sample_embedding,
        Positions: _sample_positions,
        LSTM: _one_at_a_time,
        RecentAverage: _one_at_a_time,
    }


def _sample_embedding(layer: nn.Module, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Apply Opacus' rule, which gives the padding row a gradient, and clear that row."""
    samples: Samples = compute_embedding_grad_sample(layer, activations, backprops)
    padding_idx: int | None = layer.padding_idx  # type: ignore[assignment]
    if padding_idx is not None:
        for gradient in samples.values():
            gradient[:, padding_idx] = 0.0
    return samples


def _sample_positions(layer: nn.Module, _: list[Tensor], backprops: Tensor) -> Samples:
    return {layer.weight: backprops.sum(dim=1)}  # type: ignore[dict-item]


def _one_at_a_time(layer: nn.Module, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Differentiate one sample after the other: slow, and right for any layer."""
    parameters, rows = trained_parameters(layer), []
    with torch.enable_grad():
        for number in range(len(backprops)):
            one = slice(number, number + 1)
            output = layer.forward(activations[0][one])  # not called, or the hooks would see it
            output = output[0] if isinstance(output, tuple) else output
            rows.append(torch.autograd.grad(output, parameters, grad_outputs=backprops[one]))
    return {
        parameter: torch.stack(column) for parameter, column in zip(parameters, zip(*rows, strict=True), strict=True)
    }


def _detach_hooks(model: nn.Module) -> None:
    """Remove the hooks that a constructor which failed half-way left on the model."""
    for handle in vars(model).pop("autograd_grad_sample_hooks", ()):
        handle.remove()
    for module in model.modules():
        vars(module).pop("ft_compute_sample_grad", None)


def _forget_activations(model: nn.Module) -> None:
    """Drop what a pass that failed half-way left behind: it was of another node."""
    for module in model.modules():
        for name in ("activations", "max_batch_len"):
            vars(module).pop(name, None)
    for parameter in model.parameters():
        vars(parameter).pop("_current_grad_sample", None)
