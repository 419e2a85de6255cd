"""Copies of what a pass over a task could change: in its model, in the task itself, and in the object of its data."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from nerv_fl.tasks.registry import AnyTask

MOST_NESTED: Final = 3
"""Levels of containers and objects inside an attribute that are watched."""

_OF_TORCH: Final = frozenset(
    {"training", "per_sample", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
    | {name for name in vars(nn.Module()) if "hook" in name}
)
"""Attributes of a module that are torch's or an engine's own."""


def state_of(model: nn.Module | None, task: AnyTask, data: Any) -> dict[str, Any]:
    """Return copies of what a pass could change in the model, the task and the data's object."""
    found: dict[str, Any] = {}
    if model is not None:
        found |= {f"parameter {name!r}": item.detach().clone() for name, item in model.named_parameters()}
        found |= {f"requires_grad of {name!r}": repr(item.requires_grad) for name, item in model.named_parameters()}
        found |= {f"buffer {name!r}": item.detach().clone() for name, item in model.named_buffers()}
        found |= attributes_of_modules(model)
        found["the mode (train or eval) of the model"] = repr([module.training for module in model.modules()])
    of_data = vars(data) if _is_plain_object(data) else {}
    return found | _snapshot(vars(task), where="the task") | _snapshot(of_data, where="the data")


def attributes_of_modules(model: nn.Module) -> dict[str, Any]:
    """Return copies of the modules' own attributes: neither parameters nor buffers, which have names of their own."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        own = {name: item for name, item in vars(module).items() if name not in _OF_TORCH}
        found |= _snapshot(own, where=f"module {path!r}" if path else "the model")
    return found


def _snapshot(attributes: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in attributes.items():
        found |= dict(_leaves(value, name=f"attribute {name!r} of {where}", depth=MOST_NESTED))
    return found


def _leaves(value: Any, *, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield copies of the tensors, arrays and plain values inside a value, each with its place."""
    if isinstance(value, Tensor):
        yield name, value.detach().clone()
    elif isinstance(value, np.ndarray):
        yield name, value.copy()
    elif isinstance(value, bool | int | float | str | bytes | None):
        yield name, repr(value)
    elif depth and isinstance(value, Mapping):
        yield f"{name} (its keys)", repr(list(value))
        for key, item in value.items():
            yield from _leaves(item, name=f"{name}[{key!r}]", depth=depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset | deque):
        yield f"{name} (its length)", repr(len(value))
        for index, item in enumerate(value):
            yield from _leaves(item, name=f"{name}[{index}]", depth=depth - 1)
    elif depth and _is_plain_object(value):
        for key, item in vars(value).items():
            yield from _leaves(item, name=f"{name}.{key}", depth=depth - 1)


def _is_plain_object(value: Any) -> bool:
    """Return whether a value is an object of the task's own, whose attributes are to be looked at."""
    package = type(value).__module__.partition(".")[0]
    is_own = package not in {"builtins", "torch", "numpy", "h5py", "threading", "_thread", "nerv_fl", "functools"}
    return is_own and hasattr(value, "__dict__") and not callable(value)


def changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names that only one of two sets of copies has, or whose bits differ."""
    names = {**before, **after}
    return [name for name in names if name not in before or name not in after or not is_same(before[name], after[name])]


def is_same(before: Any, after: Any) -> bool:
    """Return whether two copies have the same bits."""
    if isinstance(before, str) or isinstance(after, str):
        return bool(before == after)
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    left, right = (item.cpu().numpy() if isinstance(item, Tensor) else item for item in (before, after))
    return left.tobytes() == right.tobytes()
