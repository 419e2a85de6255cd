"""The model of a run is that of its last whole checkpoint, with the measures of its round."""

from pathlib import Path

import pytest

from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.weights import vector_hash
from nerv_fl.server.export_source import trained_model
from tests.federation.tiny_run import copy_run, run_rounds


def test_a_runs_encoder_is_its_checkpoints(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **{"federation.num_rounds": 2})
    state = run_rounds(folder)
    source = trained_model(folder)
    assert isinstance(source.model, Encoder)
    assert vector_hash(get_flat(source.model).numpy()) == state.model_hash == source.origin["model_hash"]
    assert (source.preset, source.origin["round"]) == ("quickstart", 2)
    assert source.origin["run"] == folder.read_manifest()["run"]
    assert source.epoch == sum(record.accepted for record in folder.rounds()[1:]) > 0
    assert source.metrics["round"]["round"] == 2  # type: ignore[index]
    assert source.metrics["references"]["random_weights"]  # type: ignore[index]


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run")
    message = f"^{folder.root} holds a run without a checkpoint, expected one with a finished round$"
    with pytest.raises(DataError, match=message):
        trained_model(folder)
