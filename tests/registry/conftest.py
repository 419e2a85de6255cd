"""Models to add: an encoder's file, a training's folder, an export."""

import json
from pathlib import Path

import pytest

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.write import write_export
from nerv_fl.models.presets import PRESETS
from nerv_fl.models.weights import save_encoder
from nerv_fl.registry import Registry
from nerv_fl.registry.entry import Entry
from nerv_fl.rng import torch_stream


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training's folder: weights, measures, a log, and what is no part of the result."""
    folder = tmp_path / "training"
    folder.mkdir()
    encoder = Encoder(PRESETS["quickstart"])
    encoder.reset_parameters(torch_stream(1, "registry"))
    save_encoder(folder / "encoder.safetensors", encoder, facts={"movement_floor": 0.25, "epsilon": None})
    measures = {"measures": {"masked_ce": 3.2}, "unigram": 3.7, "per_account": 3.05}
    (folder / "metrics.json").write_text(json.dumps(measures))
    (folder / "training.log").write_text("step 1: loss 4\n")
    (folder / "encoder.safetensors.resume").write_text("what a resume needs")
    (folder / ".hidden").write_text("nobody's business")
    return folder


@pytest.fixture
def weights(training: Path) -> Path:
    return training / "encoder.safetensors"


@pytest.fixture
def exported(training: Path, tmp_path: Path) -> Path:
    out = tmp_path / "exported"
    write_export(open_source(training / "encoder.safetensors"), out, fmt="bincode")
    return out


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "store")


@pytest.fixture
def added(registry: Registry, training: Path) -> Entry:
    return registry.add(training)
