"""Which trained models a path holds, and what is known of them.

A model is a safetensors file whose header says what it is. What was measured of it stands in `NAME.metrics.json` or
`metrics.json` beside it, and what its training wrote down in the header.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import nn

from nerv_fl.errors import DataError
from nerv_fl.io.checksums import sha256_of
from nerv_fl.models.forecaster_files import KIND as FORECASTER
from nerv_fl.models.forecaster_files import load_forecaster
from nerv_fl.models.predictor_files import KIND as PREDICTOR
from nerv_fl.models.predictor_files import load_predictor
from nerv_fl.models.weights import open_encoder

NAMES: Final = ("encoder", "predictor", "forecaster")
SUFFIX: Final = ".safetensors"
PATHS: Final = ("folder", "path")
"""Measures that only say where on its machine a training wrote: nobody else's business."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A trained model.

    Attributes:
        kind: One of `NAMES`.
        model: The model.
        path: Its file, or None for an encoder that lies in a checkpoint.
        preset: Name of its sizes; empty where there is one size only.
        origin: Where it comes from: its file and that file's hash, or its run and round.
        facts: What its training wrote into the file.
        metrics: What was measured of it; empty if nothing is known.
        epoch: Committed rounds before it.
    """

    kind: str
    model: nn.Module
    path: Path | None = None
    preset: str = ""
    origin: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    epoch: int = 0


def find_models(path: Path) -> tuple[Path, ...]:
    """Return the model files of a path: itself, or those in the folder.

    Raises:
        DataError: If there is none.
    """
    if path.is_file():
        return (path,)
    found = tuple(path / f"{name}{SUFFIX}" for name in NAMES if (path / f"{name}{SUFFIX}").is_file())
    if not found:
        names = ", ".join(f"{name}{SUFFIX}" for name in NAMES)
        what = "holds no model" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}, expected a run folder with a checkpoint, or one of: {names}")
    return found


def open_source(path: Path) -> Source:
    """Read a model of whichever kind it is.

    Raises:
        DataError: If the file is no model of ours.
        CheckpointError: If it is damaged, or not what its header says.
    """
    header = read_header(path)
    kind = kind_of(header, path=path)
    model, facts = _LOADERS[kind](path)
    return Source(
        kind=kind,
        model=model,
        path=path,
        preset=header.get("preset", ""),
        origin={"file": path.name, "sha256": sha256_of(path)},
        facts=facts,
        metrics=read_metrics(path),
    )


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a safetensors file.

    Raises:
        DataError: If it is not one.
    """
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error


def kind_of(header: Mapping[str, str], *, path: Path) -> str:
    """Return what a header says its file is.

    Raises:
        DataError: If it is no model of ours.
    """
    if "preset" in header and "readout" in header and "format" not in header:
        return "encoder"
    if FORECASTER in header:
        return "forecaster"
    if header.get("kind") != PREDICTOR:
        found = ", ".join(f"{name} {header[name]!r}" for name in sorted(header) if name != "facts") or "nothing"
        raise DataError(f"{path} says {found} of itself, expected an encoder, a predictor or a forecaster in float32")
    return "predictor"


def read_metrics(path: Path) -> dict[str, Any]:
    """Return what was measured of a model file; empty if nothing lies beside it.

    `NAME.metrics.json` is the file's own; `metrics.json` is, if the folder holds no other model.

    Raises:
        DataError: If the measures are no JSON object.
    """
    alone = sum(path.with_name(f"{name}{SUFFIX}").is_file() for name in NAMES) <= 1
    for name in (f"{path.stem}.metrics.json", *(("metrics.json",) if alone else ())):
        beside = path.with_name(name)
        if beside.is_file():
            found = _json_of(beside.read_text(encoding="utf-8"), source=beside)
            return {name: value for name, value in found.items() if name not in PATHS}
    return {}


def _encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    return open_encoder(path), _json_of(read_header(path).get("facts", "{}"), source=path)


_LOADERS: Final[Mapping[str, Callable[[Path], tuple[nn.Module, dict[str, Any]]]]] = {
    "encoder": _encoder,
    "predictor": load_predictor,
    "forecaster": load_forecaster,
}


def _json_of(text: str, *, source: Path) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=lambda _constant: None)
    except json.JSONDecodeError as error:
        raise DataError(f"{source} holds no JSON where its measures should be: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{source} holds a {type(found).__name__}, expected a JSON object of measures")
    return found
