"""`nerv-fl export` as a user meets it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import PRESETS
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import torch_stream
from tests.federation.tiny_run import copy_run, run_rounds

RUNNER = CliRunner()


def invoke(*arguments: str) -> str:
    """Run `nerv-fl` in this process and return its output; it must succeed."""
    result = RUNNER.invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with an encoder and what was measured of it."""
    encoder = Encoder(PRESETS["quickstart"])
    encoder.reset_parameters(torch_stream(1, "cli"))
    save_encoder(tmp_path / "encoder.safetensors", encoder, facts={"movement_floor": 0.25, "epsilon": None})
    measures = {"measures": {"masked_ce": 3.2}, "unigram": 3.7, "per_account": 3.05}
    (tmp_path / "metrics.json").write_text(json.dumps(measures))
    return tmp_path


def test_the_help_names_the_formats() -> None:
    text = invoke("export", "--help")
    words = ("--format", "--out", "--json", "safetensors", "onnx", "torchscript", "bincode", "never checked")
    assert [word for word in words if word not in text] == []


def test_a_folder_of_models_gets_a_folder_for_each(models: Path) -> None:
    lines = invoke("export", str(models), "--format", "bincode").splitlines()
    path = models / "export" / "encoder-bincode" / "encoder.bin"
    assert lines == [f"{path}: {path.stat().st_size:,} bytes"]
    assert "| masked cross-entropy, nats | 3.2 | unigram 3.7, per account 3.05 |" in (
        path.with_name("README.md").read_text()
    )


def test_one_file_is_exported_where_it_is_told(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    text = invoke("export", str(models / "encoder.safetensors"), "--format", "safetensors", "--out", str(out), "--json")
    assert list(json.loads(text)) == [str(out / "encoder-safetensors")]
    assert (out / "encoder-safetensors" / "encoder.safetensors").read_bytes() == (
        models / "encoder.safetensors"
    ).read_bytes()


def test_a_runs_encoder_is_exported_with_its_round(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **{"federation.num_rounds": 1})
    run_rounds(folder)
    (manifest,) = json.loads(invoke("export", str(folder.root), "--format", "onnx", "--json")).values()
    assert manifest["source"]["round"] == 1
    assert manifest["metrics"]["round"]["masked_ce"]["unigram"] > 0
    assert "Trained federatedly: epsilon" in (folder.root / "export" / "encoder-onnx" / "README.md").read_text()


def test_bad_input_says_what_was_expected(models: Path, tmp_path: Path) -> None:
    for folder, fmt, error, message in (
        (models, "onx", ConfigError, r"^format is 'onx', expected one of: .* \(did you mean 'onnx'\?\)$"),
        (tmp_path / "none", "onnx", DataError, r"none does not exist, expected a run folder with a checkpoint, or one"),
    ):
        with pytest.raises(error, match=message):
            RUNNER.invoke(app, ["export", str(folder), "--format", fmt], catch_exceptions=False)
