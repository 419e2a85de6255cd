"""The manifest of an export: what is in it, what goes in and comes out, what was measured, and how near it stays."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nerv_fl.errors import DataError
from nerv_fl.io.checksums import sha256_of
from nerv_fl.models.export.encoder_graphs import Graph, Port
from nerv_fl.models.export.export_source import SUFFIX, Source
from nerv_fl.models.tensor_files import read_tensors, tensor_entries

SCHEMA: Final = "nerv-fl export 1"
MANIFEST_FILE: Final = "manifest.json"
LICENCE: Final = "Apache-2.0"
TOLERANCE: Final = 1e-4
"""Largest difference of a float32 export from the model, over 1 + the largest output."""
LIBRARIES: Final = ("nerv-fl", "torch", "onnx", "onnxruntime", "safetensors", "blake3", "numpy")

Outputs = Sequence[npt.NDArray[np.generic]]


class Differences(NamedTuple):
    """The largest difference of each output, as it is and over 1 + the output's largest."""

    absolute: dict[str, float]
    relative: dict[str, float]


def file_entry(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file: hash and size, and of safetensors the dtype and shape of each tensor.

    Raises:
        CheckpointError: If it is called safetensors and is none.
    """
    entry: dict[str, Any] = {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    if path.suffix == SUFFIX:
        entry["tensors"] = tensor_entries(read_tensors(path)[1])
    return entry


def ports_entry(graph: Graph) -> dict[str, Any]:
    """Return what a manifest says of a graph's inputs and outputs."""

    def entry(port: Port) -> dict[str, object]:
        return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}

    return {"inputs": [entry(port) for port in graph.inputs], "outputs": [entry(port) for port in graph.outputs]}


def largest_differences(graph: Graph, found: Sequence[Outputs], expected: Sequence[Sequence[Tensor]]) -> Differences:
    """Compare what a runtime gave with what the model gives.

    Args:
        graph: What was run.
        found: The runtime's outputs, for each example.
        expected: The model's.

    Raises:
        DataError: If an output has another shape.
    """
    found_worst = Differences(*({port.name: 0.0 for port in graph.outputs} for _ in range(2)))
    for outputs, tensors in zip(found, expected, strict=True):
        for port, output, tensor in zip(graph.outputs, outputs, tensors, strict=True):
            right = tensor.numpy().astype(np.float64)
            if output.shape != right.shape:
                raise DataError(f"output {port.name} has shape {output.shape}, expected {right.shape}")
            difference = float(np.abs(output.astype(np.float64) - right).max(initial=0.0))
            relative = difference / (1.0 + float(np.abs(right).max(initial=0.0)))
            for worst, value in zip(found_worst, (difference, relative), strict=True):
                worst[port.name] = float(np.maximum(worst[port.name], value))
    return found_worst


def require_near(path: Path, differences: Differences) -> None:
    """Refuse a float32 export that does not compute what the model does.

    Raises:
        DataError: If an output differs by more than `TOLERANCE`.
    """
    for name, relative in differences.relative.items():
        if not relative <= TOLERANCE:
            raise DataError(
                f"{name} of {path.name} differs from the model's by {relative:.2e} of 1 + its largest, "
                f"expected at most {TOLERANCE:g}"
            )


def manifest_of(
    source: Source, *, fmt: str, files: Mapping[str, object], notes: Mapping[str, object]
) -> dict[str, Any]:
    """Return the manifest of a model's files.

    Args:
        source: The model.
        fmt: Name of the format.
        files: What is said of each file, by name.
        notes: What is said of the format.
    """
    return {
        "schema": SCHEMA,
        "kind": source.kind,
        "preset": source.preset,
        "format": fmt,
        "licence": LICENCE,
        "source": dict(source.origin),
        "model": model_entry(source),
        "facts": dict(source.facts),
        "metrics": dict(source.metrics),
        "files": dict(files),
        **notes,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder."""
    text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def model_entry(source: Source) -> dict[str, object]:
    """Return the sizes of a model."""
    parameters = sum(parameter.numel() for parameter in source.model.parameters())
    preset = getattr(source.model, "preset", None)
    sizes: dict[str, object] = {"parameters": parameters}
    if preset is not None:
        sizes |= {
            "readout": source.model.readout,
            "accounts": preset.num_accounts,
            "width": preset.width,
            "layers": preset.num_layers,
            "heads": preset.num_heads,
            "tokens": preset.num_tokens,
            "vocabulary": preset.vocabulary,
        }
    return sizes
