"""`nerv-fl models` as a user meets it."""

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

RUNNER = CliRunner()


def invoke(*arguments: str) -> str:
    """Run `nerv-fl models` in this process and return its output; it must succeed."""
    result = RUNNER.invoke(app, ["models", *arguments], catch_exceptions=False, env={"COLUMNS": "250", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NERV_FL_MODELS", str(tmp_path / "store"))
    encoder = Encoder(PRESETS["quickstart"])
    encoder.reset_parameters(torch_stream(1, "cli"))
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder, facts={"movement_floor": 0.25})
    (tmp_path / "metrics.json").write_text('{"measures": {"masked_ce": 3.2}, "unigram": 3.7, "per_account": 3.05}')
    return path


def test_add_list_show_verify_and_bundle(weights: Path, tmp_path: Path) -> None:
    sha256, name = invoke("add", str(weights)).split()
    assert name == "encoder-quickstart"
    listed = " ".join(invoke("list").split())
    for word in (name, "encoder", "quickstart", sha256[:12], "masked cross-entropy, nats 3.2 (unigram 3.7"):
        assert word in listed
    (entry,) = json.loads(invoke("list", "--json"))
    assert entry["sha256"] == sha256
    shown = json.loads(invoke("show", sha256[:8]))
    assert shown["manifest"]["facts"] == {"movement_floor": 0.25}
    assert invoke("verify").strip() == f"{tmp_path / 'store'}: 1 entries, every file as it was added"
    out = tmp_path / "bundle"
    assert invoke("bundle", name, "--out", str(out)).strip() == str(out)
    assert (out / "SHA256SUMS").is_file()


def test_rename_and_remove(weights: Path) -> None:
    sha256, name = invoke("add", str(weights)).split()
    assert invoke("rename", name, "best").split() == [sha256, "best"]
    assert json.loads(invoke("list", "--json"))[0]["name"] == "best"
    with pytest.raises(ConfigError, match=r"^model 'encoder-quickstart' is not in .*, expected one of: best$"):
        RUNNER.invoke(app, ["models", "remove", name], catch_exceptions=False)
    assert invoke("remove", "best").strip() == sha256
    assert json.loads(invoke("list", "--json")) == []


def test_another_store(weights: Path, tmp_path: Path) -> None:
    invoke("add", str(weights), "--store", str(tmp_path / "other"), "--name", "mine")
    assert json.loads(invoke("list", "--json")) == []
    assert json.loads(invoke("list", "--store", str(tmp_path / "other"), "--json"))[0]["name"] == "mine"


def test_bad_input_says_what_was_expected(weights: Path, tmp_path: Path) -> None:
    sha256, _ = invoke("add", str(weights)).split()
    with pytest.raises(ConfigError, match=r"^model 'encodr' is not in .*\(did you mean 'encoder-quickstart'\?\)$"):
        RUNNER.invoke(app, ["models", "show", "encodr"], catch_exceptions=False)
    path = tmp_path / "store" / sha256 / "files" / "encoder.safetensors"
    path.write_bytes(b"other weights")
    with pytest.raises(
        DataError, match=rf"store is damaged, expected every file as it was added:\n{path} has SHA-256 "
    ):
        RUNNER.invoke(app, ["models", "verify"], catch_exceptions=False)
