"""Which files are models, and every refusal of one that is not."""

import json
import re
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.export_source import find_models, open_source, read_metrics
from nerv_fl.models.presets import PRESETS
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import torch_stream


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An encoder of the quickstart's preset."""
    encoder = Encoder(PRESETS["quickstart"])
    encoder.reset_parameters(torch_stream(1, "source"))
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, encoder, facts={"movement_floor": 0.25})
    return file


def test_an_encoder_says_what_it_is(path: Path) -> None:
    path.with_name("metrics.json").write_text('{"unigram": 3.5, "nothing": NaN, "path": "/home/me/encoder"}')
    source = open_source(path)
    assert (source.kind, source.preset, source.path) == ("encoder", "quickstart", path)
    assert source.facts == {"movement_floor": 0.25}
    assert source.metrics == {"unigram": 3.5, "nothing": None}
    assert source.origin["file"] == "encoder.safetensors"


def test_a_files_own_measures_come_before_the_folders(path: Path) -> None:
    path.with_name("metrics.json").write_text('{"of": "folder"}')
    path.with_name("encoder.metrics.json").write_text('{"of": "file"}')
    assert read_metrics(path) == {"of": "file"}


def test_a_folders_measures_are_nobodys_where_it_holds_two_models(path: Path) -> None:
    path.with_name("metrics.json").write_text('{"of": "folder"}')
    assert read_metrics(path) == {"of": "folder"}
    path.with_name("predictor.safetensors").write_bytes(b"another")
    assert read_metrics(path) == {}


def test_models_of_a_folder_are_found_by_name(path: Path) -> None:
    assert find_models(path) == (path,)
    assert find_models(path.parent) == (path,)


@pytest.mark.parametrize(("made", "what"), [(True, "holds no model"), (False, "does not exist")])
def test_a_folder_without_a_model(tmp_path: Path, made: bool, what: str) -> None:
    folder = tmp_path / "empty"
    if made:
        folder.mkdir()
    names = "encoder.safetensors, predictor.safetensors, forecaster.safetensors"
    message = f"{folder} {what}, expected a run folder with a checkpoint, or one of: {names}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        find_models(folder)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, "nothing"),
        ({"kind": "cat pictures"}, "kind 'cat pictures'"),
        ({"preset": "tee", "readout": "balance", "format": "int8"}, "format 'int8', preset 'tee', readout 'balance'"),
    ],
)
def test_another_programs_file(tmp_path: Path, header: dict[str, str] | None, found: str) -> None:
    import numpy as np

    path = tmp_path / "x.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, path, metadata=header)
    message = f"{path} says {found} of itself, expected an encoder, a predictor or a forecaster in float32"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        open_source(path)


def test_weights_of_another_preset(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"preset":"quickstart"', b'"preset":"small"     '))
    with pytest.raises(CheckpointError, match=rf"^{path} holds embedding\.weight of shape \(321, 32\), expected"):
        open_source(path)


def test_a_file_that_is_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(DataError, match=rf"^{path} cannot be read as safetensors: "):
        open_source(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "holds no JSON where its measures should be: "),
        (json.dumps([1]), "holds a list, expected a JSON object of measures"),
    ],
)
def test_measures_that_are_none(path: Path, text: str, message: str) -> None:
    beside = path.with_name("metrics.json")
    beside.write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(str(beside))} {message}"):
        open_source(path)
