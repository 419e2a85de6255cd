"""The forecaster trained federatedly, in the loop that trains the encoder."""

from pathlib import Path

import numpy as np
import pytest

from nerv_fl.config import Flat, build
from nerv_fl.errors import CheckpointError
from nerv_fl.models.export.measures import measures_of
from nerv_fl.models.forecaster import Forecaster, LoadScale
from nerv_fl.models.trainable import trained_P
from nerv_fl.server.checkpoint import load_state
from nerv_fl.server.export_source import trained_model
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.forecaster import ForecasterTask
from simulations.prepare import open_folder, prepare
from tests.federation.tiny_run import SETTINGS, Trace, run_rounds

LOAD: Flat = {
    "task": "forecaster",
    "model.width": 8,
    "data.steps": 360,
    "data.samples_per_node": 360,
    "data.bootstrap_chains": 4,
    "server.learning_rate": 0.01,
    "gate.steps": [1.0, 0.25],
}


def prepared(root: Path, changes: Flat | None = None) -> RunFolder:
    folder = open_folder(root, build(SETTINGS | LOAD | (changes or {})), resume=False)
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    made = prepared(tmp_path_factory.mktemp("forecaster") / "run")
    run_rounds(made)
    return made


def test_it_learns_and_is_measured_beside_its_trivial_models(folder: RunFolder) -> None:
    start, *rounds = folder.rounds()

    assert any(record.accepted for record in rounds)
    assert rounds[-1].loss < start.loss
    assert start.measures.keys() == {"overload", "metrics"}
    assert start.trivial.keys() == {"loss", "overload", "metrics"}
    assert folder.read_manifest()["references"].keys() == {"random_weights"}


def test_the_same_bits_however_nodes_are_blocked_and_after_a_resume(folder: RunFolder, tmp_path: Path) -> None:
    begun = prepared(tmp_path / "run", {"federation.num_rounds": 1})
    run_rounds(begun, num_supernodes=3)
    begun.write_config(folder.config)

    run_rounds(RunFolder(begun.root), num_supernodes=4)

    assert Trace.of(begun) == Trace.of(folder)


def test_it_trains_in_part(tmp_path: Path) -> None:
    """The nodes' noise, the alarm for what has none, and the server's step keep to the heads."""
    made = prepared(tmp_path / "run", {"training.trainable": "*_head.*", "federation.num_rounds": 1})

    run_rounds(made)

    start_P, _ = ForecasterTask.read_start(made.bootstrap_path, made.config)
    moved_P = load_state(made.checkpoint).theta_P != start_P
    moves_P = trained_P(Forecaster(LoadScale.unit(), width=8), "*_head.*")
    counts = made.rounds()[-1].nodes
    assert counts is not None
    assert "unnoised" not in counts.flagged
    assert moves_P is not None
    assert np.array_equal(moved_P, moves_P)


def test_it_starts_from_a_model_that_was_trained_centrally(folder: RunFolder, tmp_path: Path) -> None:
    weights = folder.bootstrap_path

    other = prepared(tmp_path / "run", {"bootstrap.weights": str(weights), "seed": 8})

    assert other.bootstrap_path.read_bytes() == weights.read_bytes()
    with pytest.raises(CheckpointError, match=r"has width 8, expected 16 \(model\.width\)$"):
        prepared(tmp_path / "wide", {"bootstrap.weights": str(weights), "model.width": 16})


def test_what_it_trained_can_be_exported(folder: RunFolder) -> None:
    source = trained_model(folder)

    assert isinstance(source.model, Forecaster)
    assert source.origin["model_hash"] == folder.rounds()[-1].model_hash
    measures = {measure.name: measure for measure in measures_of(source)}
    overload = measures["overload, cross-entropy in nats"]
    assert overload.trivial == (("base rate", folder.rounds()[0].trivial["overload"]),)
