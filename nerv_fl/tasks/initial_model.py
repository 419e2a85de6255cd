"""Where a run starts, on disk: a model's weights, and the public constants of its task beside them.

Shapes: P parameters.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors.torch import save
from torch import nn

from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.encoder import get_flat
from nerv_fl.models.tensor_files import read_facts, read_tensors, require_tensors, with_sorted_header
from nerv_fl.types import Vector

Constants: TypeAlias = Mapping[str, Any]
"""Public numbers that a run's start fixes, JSON values: the server sends them, and each node checks them."""


def write_start(path: Path, model: nn.Module, *, constants: Constants) -> None:
    """Write a model's named weights and a task's constants atomically: the same bytes for the same numbers."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}
    header = {"constants": json.dumps(constants, sort_keys=True)}
    write_atomically(path, with_sorted_header(save(tensors, metadata=header)))


def read_start(path: Path, build: Callable[[Constants], nn.Module]) -> tuple[Vector, Constants]:
    """Return the weights of a file that `write_start` wrote, float32 (P,), and the constants beside them.

    Args:
        path: The file.
        build: Returns the model under given constants.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another model.
    """
    header, tensors = read_tensors(path)
    constants = read_facts(path, header.get("constants", "{}"))
    model = build(constants)
    parameters = dict(model.named_parameters())
    require_tensors(path, tensors, parameters, what="model")
    model.load_state_dict(tensors, strict=False)  # buffers come from the constants
    return get_flat(model).numpy(), constants
