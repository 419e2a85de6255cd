"""`nerv-fl bootstrap predictor`, from races to a table and files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import torch_stream

RUNNER = CliRunner()


def invoke(*arguments: str | Path) -> str:
    result = RUNNER.invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_from_races_to_a_predictor(tmp_path: Path) -> None:
    encoder, weights = Encoder(get_preset("quickstart")), tmp_path / "encoder.safetensors"
    encoder.reset_parameters(torch_stream(1, "weights"))
    save_encoder(weights, encoder, facts={})
    small = ("--shards", "20", "--races", "24", "--accounts", "64", "--max-transactions", "6")
    for name, seed in (("races.h5", 4), ("unseen.h5", 5)):
        invoke("datagen", "consensus", "--out", tmp_path / name, "--seed", str(seed), "--workers", "1", *small)
    command = ("bootstrap", "predictor", "--data", tmp_path / "races.h5", "--encoder", weights)
    short = ("--steps", "4", "--evaluate-every", "2", "--max-shards", "3", "--rollouts", "2")
    told = invoke(*command, "--out", tmp_path / "a", *short)
    assert "int8, unseen races" in told
    assert "the same, with the rule once it decides" in told
    assert max(map(len, told.splitlines())) <= max(80, len(str(tmp_path)) + 80)
    found = json.loads(invoke(*command, "--out", tmp_path / "b", "--test", tmp_path / "unseen.h5", "--json", *short))
    assert found["float32"][3]["with_rule"] == 1.0
    assert found["float32"][0]["races"] == 20 * 24
    assert {path.name for path in (tmp_path / "b").iterdir()} >= {"metrics.json", "predictor.int8.onnx"}
