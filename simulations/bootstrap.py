"""Which encoder a simulation starts from, its own or a given one, and what the manifest says of it."""

from pathlib import Path
from typing import Any, Final

from nerv_fl.config import RunConfig
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.folders import sha256_of
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder
from nerv_fl.registry import Entry, open_registry

FACTS: Final = ("best_step", "movement_floor")


def given_weights(config: RunConfig) -> Path | None:
    """Return the file of `bootstrap.weights`, or None if the run pretrains its own.

    A path comes first; what is no file is looked for in the registry, by name or hash, and must be as it was added.

    Raises:
        ConfigError: If it is neither a file nor in the registry, or the entry holds no encoder.
        DataError: If the registry's file was changed.
        CheckpointError: If the weights are damaged, of another preset or read-out, or without f of the loss.
    """
    reference = config.bootstrap.weights
    if not reference:
        return None
    path = Path(reference)
    if not path.is_file():
        path = _of_registry(reference)
    facts = _facts(config, path)
    if facts.get("movement_floor") is None:
        raise CheckpointError(
            f"{path} names no movement_floor, expected the f of its loss: a bootstrap writes it into the file"
        )
    return path


def provenance(config: RunConfig, path: Path) -> dict[str, Any]:
    """Return what a manifest says of the encoder that a run starts from.

    Args:
        config: The run's settings.
        path: The weights in the run folder.

    Returns:
        Facts of its training, the SHA-256 of the file, and the registry's entry that holds it, or None.

    Raises:
        CheckpointError: If the weights are damaged, or of another preset or read-out.
    """
    facts, sha256 = _facts(config, path), sha256_of(path)
    entry = open_registry().holding(sha256)
    return {name: facts.get(name) for name in FACTS} | {
        "weights_sha256": sha256,
        "registry": None if entry is None else {"entry": entry.sha256, "name": entry.name},
    }


def require_begun_with(manifest: dict[str, Any], path: Path) -> None:
    """Refuse weights that are not those a run began with.

    Raises:
        CheckpointError: If the file has another hash than the manifest says.
    """
    expected, found = manifest["bootstrap"].get("weights_sha256"), sha256_of(path)
    if expected is not None and found != expected:
        raise CheckpointError(f"{path} has SHA-256 {found}, expected {expected}: the run began with it")


def _facts(config: RunConfig, path: Path) -> dict[str, object]:
    return load_encoder(path, Encoder(get_preset(config.model.preset), readout=config.model.readout))


def _of_registry(reference: str) -> Path:
    registry = open_registry()
    try:
        entry = registry.find(reference)
    except ConfigError as error:
        raise ConfigError(f"bootstrap.weights is {reference!r}, expected a file or a model: {error}") from error
    registry.check(entry)
    name = _encoder_file(entry)
    if name is None:
        raise ConfigError(
            f"bootstrap.weights is {reference!r}, {entry.kind} in form {entry.form}, expected an encoder in float32"
        )
    return registry.path_of(entry) / name


def _encoder_file(entry: Entry) -> str | None:
    """Return the name of an entry's float32 encoder, or None."""
    if entry.kind != "encoder":
        return None
    if entry.form == "weights":
        return next(iter(entry.files))
    return "encoder.safetensors" if "encoder.safetensors" in entry.files else None
