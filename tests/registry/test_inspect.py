"""What an entry's manifest says: of the files that are there, and of every tensor in them."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.write import write_export
from nerv_fl.models.forecaster import Forecaster, LoadScale
from nerv_fl.models.forecaster_files import save_forecaster
from nerv_fl.registry.inspect import read_content

EXPORT_ONLY = ("encoder.int8", "table_32_16", "opset", "traced", "int8 files")


@pytest.mark.parametrize("form", ["weights", "training"])
def test_notes_speak_of_no_file_that_only_an_export_has(training: Path, form: str) -> None:
    content = read_content(training / "encoder.safetensors" if form == "weights" else training)
    assert content.form == form
    words = " ".join(content.manifest["notes"])
    assert [word for word in EXPORT_ONLY if word in words] == []
    assert "no file here holds the table V" in words
    assert "E(S) = sum_i (b_i / T) V_i" in words


def test_notes_of_an_export_speak_of_its_files(training: Path, tmp_path: Path) -> None:
    source = open_source(training / "encoder.safetensors")
    words = {fmt: " ".join(write_export(source, tmp_path / fmt, fmt=fmt)["notes"]) for fmt in ("safetensors", "onnx")}
    assert "int8.safetensors: one reciprocal step a matrix" in words["safetensors"]
    assert "opset 17" not in words["safetensors"]
    assert "opset 17" in words["onnx"]
    assert "reciprocal step" not in words["onnx"]
    for text in words.values():
        assert "every file here that has a table holds that one" in text


def test_a_forecasters_training_says_nothing_of_the_protocols_file(tmp_path: Path) -> None:
    save_forecaster(tmp_path / "forecaster.safetensors", Forecaster(LoadScale.unit(), width=8), facts={"epsilon": None})
    (tmp_path / "forecaster.int8.onnx").write_bytes(b"stands for one")
    manifest = read_content(tmp_path).manifest
    assert manifest["adapters"] == []
    assert manifest["notes"] == [
        "int8 files hold int8 weights; activations are quantised at each call",
        "opset 17, by torch's older exporter",
    ]


def test_every_tensor_is_listed(training: Path) -> None:
    path = training / "encoder.safetensors"
    found = read_content(training).manifest["files"]
    expected = {name: {"dtype": "float32", "shape": list(array.shape)} for name, array in load_file(path).items()}
    assert found[path.name]["tensors"] == expected
    assert "tensors" not in found["metrics.json"]
