"""An export: a folder with a model in one format, its manifest and its card, whole or not at all."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from nerv_fl.errors import ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import staged_folder
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.bincode import rust_encoder, rust_tensors, to_bytes
from nerv_fl.models.export.card import write_card
from nerv_fl.models.export.encoder_graphs import Graph, encoder_graph
from nerv_fl.models.export.export_source import Source
from nerv_fl.models.export.forecaster_graphs import forecaster_graphs
from nerv_fl.models.export.manifest import (
    Outputs,
    file_entry,
    largest_differences,
    manifest_of,
    ports_entry,
    require_near,
    write_manifest,
)
from nerv_fl.models.export.model_notes import file_notes
from nerv_fl.models.export.onnx_file import run_onnx, write_onnx
from nerv_fl.models.export.predictor_graphs import predictor_graphs
from nerv_fl.models.export.tensors import write_tensors
from nerv_fl.models.export.torchscript import run_torchscript, write_torchscript
from nerv_fl.models.forecaster import Forecaster
from nerv_fl.models.predictor import Predictor
from nerv_fl.validation import one_of

FORMATS: Final = ("safetensors", "onnx", "torchscript", "bincode")

_Run = Callable[[Path, Graph, tuple[Tensor, ...]], Outputs]


def require_format(fmt: str) -> None:
    """Refuse a format that there is not.

    Raises:
        ConfigError: Naming the nearest.
    """
    one_of("format", fmt, choices=FORMATS)


def write_export(source: Source, out: Path, *, fmt: str) -> dict[str, Any]:
    """Write a model in one format, with its manifest and card, and return the manifest.

    Each file that computes is loaded by its own runtime and run on two examples: a float32 file must agree with the
    model, and of an int8 one the manifest says how far it is off.

    Args:
        source: The model.
        out: Folder to make; it must be new or empty.
        fmt: One of `FORMATS`.

    Raises:
        ConfigError: If there is no such format, it holds no model of this kind, or the folder is not empty.
        DataError: If a weight is not finite, or an export does not compute what the model does.
        OSError: If the folder cannot be written.
    """
    require_format(fmt)
    if fmt == "bincode" and source.kind != "encoder":
        raise ConfigError(f"format 'bincode' holds encoders only, expected another for a {source.kind}")
    with staged_folder(out) as folder:
        files = _WRITERS[fmt](source, folder)
        manifest = manifest_of(source, fmt=fmt, files=files, notes=file_notes(source, files))
        write_manifest(folder, manifest)
        write_card(folder, manifest)
    return manifest


def graphs_of(source: Source, *, fmt: str) -> tuple[Graph, ...]:
    """Return what is computed by a model's export in a format."""
    if isinstance(source.model, Forecaster):
        return forecaster_graphs(source.model, fmt=fmt)
    if isinstance(source.model, Predictor):
        return predictor_graphs(source.model)
    assert isinstance(source.model, Encoder)
    return (encoder_graph(source.model),)


def _tensors(source: Source, folder: Path) -> dict[str, Any]:
    return {name: file_entry(folder / name) for name in write_tensors(source, folder)}


def _bincode(source: Source, folder: Path) -> dict[str, Any]:
    assert isinstance(source.model, Encoder)
    path = folder / "encoder.bin"
    rust = rust_encoder(source.model, epoch=source.epoch)
    write_atomically(path, to_bytes(rust))
    facts = {"weight_hash": rust.weight_hash.hex(), "epoch": rust.epoch, "tensors": rust_tensors(rust)}
    return {path.name: file_entry(path) | facts}


def _computing(
    source: Source, folder: Path, *, fmt: str, write: Callable[[Graph, Path], tuple[str, ...]], run: _Run
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for graph in graphs_of(source, fmt=fmt):
        examples = (graph.example, graph.other)
        expected = [graph.run(inputs) for inputs in examples]
        for place, name in enumerate(write(graph, folder)):
            path = folder / name
            found = [run(path, graph, inputs) for inputs in examples]
            differences = largest_differences(graph, found, expected)
            if place == 0:
                require_near(path, differences)
            measured = {"max_abs_difference": differences.absolute, "max_relative_difference": differences.relative}
            entries[name] = {**file_entry(path), **ports_entry(graph), **measured}
    return entries


_WRITERS: Final[Mapping[str, Callable[[Source, Path], dict[str, Any]]]] = {
    "safetensors": _tensors,
    "onnx": partial(_computing, fmt="onnx", write=write_onnx, run=run_onnx),
    "torchscript": partial(_computing, fmt="torchscript", write=write_torchscript, run=run_torchscript),
    "bincode": _bincode,
}
