"""The commands of `nerv-fl datagen`, on both data sets, from making one to checking its bundle elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import torch_stream

RUNNER = CliRunner()


def invoke(*arguments: str | Path) -> str:
    """Run `nerv-fl datagen` and return its output; it must succeed."""
    result = RUNNER.invoke(app, ["datagen", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str | Path) -> str:
    """Run `nerv-fl datagen`, which must raise an error of ours, and return its text."""
    error = RUNNER.invoke(app, ["datagen", *map(str, arguments)]).exception
    assert isinstance(error, ConfigError | DataError), error
    return str(error)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("ledger") / "ledger.h5"
    invoke("ledger", "--out", path, "--preset", "sample")
    return path


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("load") / "load.h5"
    invoke("sharding", "--out", path)
    return path


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("races") / "races.h5"
    invoke("consensus", "--out", path)
    return path


def test_samples_are_small_and_have_cards(ledger: Path, load: Path, races: Path) -> None:
    for path in (ledger, load, races):
        assert path.stat().st_size < 10**7
        card = path.with_name(f"{path.name}.card.md").read_text()
        assert "## What it is not" in card
        for figure in path.with_name(f"{path.name}.card").iterdir():
            assert f"{path.name}.card/{figure.name}" in card


def test_verify_proves_either(ledger: Path, load: Path) -> None:
    found = json.loads(invoke("verify", ledger, "--json"))
    assert found["rich_share"] == pytest.approx(0.8, abs=0.01)
    assert found["median_changed"] > 0.05
    found = json.loads(invoke("verify", load, "--json"))
    assert (found["shards"], found["steps"], found["replayed"]) == (20, 2880, 3)
    assert "onset_rate" in invoke("verify", load)


def test_inspect_tells_them_apart(ledger: Path, load: Path, races: Path) -> None:
    found = json.loads(invoke("inspect", races, "--json"))
    assert (found["kind"], found["shards"], found["races"], found["train_shards"]) == ("consensus", 20, 64, 14)
    found = json.loads(invoke("inspect", ledger, "--json"))
    assert (found["kind"], found["samples"], sum(found["shard_kinds"].values())) == ("ledger", 512, 64)
    found = json.loads(invoke("inspect", load, "--json"))
    assert (found["kind"], found["train_shards"], found["validation_shards"]) == ("shard-load", 14, 3)
    assert "tps" in invoke("inspect", load)


@pytest.mark.parametrize("kind", ["ledger", "load", "races"])
def test_a_bundle_is_checked_elsewhere(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    invoke("bundle", path, "--out", tmp_path / "bundle")
    moved = (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=moved, check=True)
    found = json.loads(invoke("verify", moved, "--json"))
    assert found["files"] >= 4
    assert found["content_sha256"] == json.loads(invoke("inspect", moved, "--json"))["content_sha256"]
    content = bytearray((moved / path.name).read_bytes())
    content[-1] ^= 1
    (moved / path.name).write_bytes(content)
    assert refused("verify", moved).startswith(f"{moved / path.name}")


def test_exports(ledger: Path, load: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    invoke("export", ledger, "--format", "seed", "--out", tmp_path / "seed.h5")
    with h5py.File(tmp_path / "seed.h5") as file:
        assert len(file) == 512
        assert file["sample_3/tokens_pre"].shape == (2049,)
    invoke("export", ledger, "--out", tmp_path / "ledger")
    invoke("export", load, "--out", tmp_path / "load")
    assert {path.name for path in (tmp_path / "load").iterdir()} == {"load.parquet"}


def test_what_is_refused(ledger: Path, load: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    assert refused("ledger", "--out", out, "--preset", "sampel") == (
        "--preset is 'sampel', expected one of: full, quickstart, sample, standard (did you mean 'sample'?)"
    )
    assert refused("ledger", "--out", out, "--chains", "0") == "chains is 0, expected a number in [1, 2147483648]"
    assert refused("sharding", "--out", out, "--shards", "0") == "shards is 0, expected a number in [1, 1000000]"
    assert refused("ledger", "--out", out, "--max-transactions", "257") == (
        "max_transactions is 257, expected a number in [1, 256]"
    )
    for supply in ("-5", str(10**16 + 1)):
        assert refused("ledger", "--out", out, "--supply-nano", supply) == (
            f"supply_nano is {supply}, expected a number in [64, 10000000000000000]"
        )
    assert refused("export", load, "--out", out, "--format", "seed") == (
        f"--format is 'seed', expected one of: parquet (for shard-load data such as {load})"
    )
    assert refused("verify", tmp_path / "none.h5") == f"{tmp_path / 'none.h5'} does not exist, expected a data file"
    assert not out.exists()


def test_the_module_is_the_same_command(tmp_path: Path, ledger: Path) -> None:
    command = [sys.executable, "-m", "datagen", "inspect", str(ledger), "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout == invoke("inspect", ledger, "--json")


def test_races_have_no_other_layout_and_want_an_encoder_of_their_size(races: Path, tmp_path: Path) -> None:
    assert refused("export", races, "--out", tmp_path / "x") == (
        f"--format is 'parquet', expected one of: none (for consensus data such as {races})"
    )
    weights, encoder = tmp_path / "encoder.safetensors", Encoder(get_preset("quickstart"))
    encoder.reset_parameters(torch_stream(1, "weights"))
    save_encoder(weights, encoder, facts={})
    small = ("consensus", "--out", tmp_path / "x.h5", "--shards", "1", "--races", "2", "--max-transactions", "4")
    assert refused(*small, "--encoder", weights) == f"{weights} has 64 accounts, expected 1024 (the data's)"
    invoke(*small, "--encoder", weights, "--accounts", "64")
    assert (tmp_path / "x.h5").exists()
