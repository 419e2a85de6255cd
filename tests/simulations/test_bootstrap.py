"""A simulation starts from the weights it is given, and its manifest names them."""

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nerv_fl.config import RunConfig
from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.io.checksums import sha256_of
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.write import write_export
from nerv_fl.models.presets import PRESETS
from nerv_fl.models.weights import save_encoder, vector_hash
from nerv_fl.registry import Registry
from nerv_fl.rng import torch_stream
from nerv_fl.server.run_folder import RunFolder
from simulations.bootstrap import given_weights
from simulations.prepare import open_folder, prepare
from tests.federation.tiny_run import change_settings, copy_run, run_rounds, tiny_config


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("NERV_FL_MODELS", str(tmp_path / "store"))
    return Registry(tmp_path / "store")


@pytest.fixture
def weights(tmp_path: Path, registry: Registry) -> Path:
    """Trained elsewhere, of the tiny run's preset."""
    path = tmp_path / "encoder.safetensors"
    save(path, facts={"movement_floor": 0.25, "best_step": 30})
    return path


def save(path: Path, *, facts: dict[str, object], preset: str = "quickstart", readout: str = "balance") -> None:
    encoder = Encoder(PRESETS[preset], readout=readout)
    encoder.reset_parameters(torch_stream(9, "given"))
    save_encoder(path, encoder, facts=facts)


def config_of(reference: object) -> RunConfig:
    return tiny_config({"bootstrap.weights": str(reference)})


def prepared(tmp_path: Path, reference: object) -> RunFolder:
    """Prepare a run whose ledgers are there already."""
    source = copy_run(tmp_path / "source")
    folder = open_folder(tmp_path / "run", config_of(reference), resume=False)
    source.data("nodes").parent.rename(folder.data("nodes").parent)
    prepare(folder)
    return folder


def test_a_run_starts_from_the_weights_given_and_says_so(weights: Path, tmp_path: Path) -> None:
    folder = prepared(tmp_path, weights)
    assert folder.bootstrap_path.read_bytes() == weights.read_bytes()
    assert folder.read_manifest()["bootstrap"] == {
        "best_step": 30,
        "movement_floor": 0.25,
        "weights_sha256": sha256_of(weights),
        "registry": None,
    }
    weights.unlink()
    prepare(RunFolder(folder.root))


def test_the_first_record_is_of_the_weights_given(weights: Path, tmp_path: Path) -> None:
    folder = prepared(tmp_path, weights)
    run_rounds(change_settings(folder, {"federation.num_rounds": 1}))
    records = folder.rounds()
    assert isinstance(encoder := open_source(weights).model, Encoder)
    assert records[0].model_hash == vector_hash(get_flat(encoder).numpy())
    assert [record.round for record in records] == [0, 1]


def test_a_model_of_the_registry_is_named_by_its_entry(weights: Path, registry: Registry, tmp_path: Path) -> None:
    entry = registry.add(weights, name="mine")
    folder = prepared(tmp_path, "mine")
    assert folder.read_manifest()["bootstrap"]["registry"] == {"entry": entry.sha256, "name": "mine"}
    assert folder.bootstrap_path.read_bytes() == weights.read_bytes()


def test_weights_of_an_export_are_found_by_hash(weights: Path, registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    write_export(open_source(weights), out, fmt="safetensors")
    entry = registry.add(out)
    assert given_weights(config_of(entry.sha256[:10])) == registry.path_of(entry) / "encoder.safetensors"


def test_without_weights_the_run_pretrains_its_own(registry: Registry) -> None:
    assert given_weights(tiny_config()) is None


def test_other_weights_in_the_place_of_the_runs_own_are_refused(
    weights: Path, registry: Registry, tmp_path: Path
) -> None:
    folder = copy_run(tmp_path / "run")
    expected = folder.read_manifest()["bootstrap"]["weights_sha256"]
    weights.replace(folder.bootstrap_path)
    found = sha256_of(folder.bootstrap_path)
    message = f"{folder.bootstrap_path} has SHA-256 {found}, expected {expected}: the run began with it"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        prepare(folder)


# --- Bad input: nothing is made before it is found --------------------------------------------------------------------


def refused(reference: object, error: type[Exception], message: str, *, tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "run", config_of(reference), resume=False)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        prepare(folder)
    assert sorted(path.name for path in folder.root.iterdir()) == ["config.toml", "copies"]


def test_weights_of_another_preset(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save(path, facts={"movement_floor": 0.25}, preset="small")
    refused(path, CheckpointError, f"{path} holds preset 'small', expected 'quickstart'", tmp_path=tmp_path)


def test_weights_of_another_readout(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "mean.safetensors"
    save(path, facts={"movement_floor": 0.25}, readout="mean")
    refused(path, CheckpointError, f"{path} holds readout 'mean', expected 'balance'", tmp_path=tmp_path)


def test_weights_without_f_of_the_loss(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save(path, facts={})
    message = f"{path} names no movement_floor, expected the f of its loss: a bootstrap writes it into the file"
    refused(path, CheckpointError, message, tmp_path=tmp_path)


def test_weights_that_are_nowhere(weights: Path, registry: Registry, tmp_path: Path) -> None:
    registry.add(weights, name="mine")
    message = (
        "bootstrap.weights is 'mime', expected a file or a model: model 'mime' is not in "
        f"{registry.root}, expected one of: mine (did you mean 'mine'?)"
    )
    refused("mime", ConfigError, message, tmp_path=tmp_path)


def test_a_model_without_float32_weights(weights: Path, registry: Registry, tmp_path: Path) -> None:
    write_export(open_source(weights), tmp_path / "exported", fmt="bincode")
    registry.add(tmp_path / "exported", name="rust")
    message = "bootstrap.weights is 'rust', encoder in form bincode, expected an encoder in float32"
    refused("rust", ConfigError, message, tmp_path=tmp_path)


def test_a_model_that_was_changed(weights: Path, registry: Registry, tmp_path: Path) -> None:
    entry = registry.add(weights, name="mine")
    path = registry.path_of(entry) / "encoder.safetensors"
    tensors = load_file(path)
    tensors["out.bias"] += 1
    save_file(tensors, path, metadata={"preset": "quickstart", "readout": "balance", "facts": "{}"})
    message = f"{path} has SHA-256 {sha256_of(path)}, expected {entry.sha256}: it was changed"
    refused("mine", DataError, message, tmp_path=tmp_path)
