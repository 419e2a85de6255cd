"""Which weights a simulation starts from, its own or given ones, and what the manifest says of them."""

from pathlib import Path
from typing import Any, Final

from nerv_fl.config import RunConfig
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.checksums import sha256_of
from nerv_fl.models.tensor_files import read_facts, read_tensors
from nerv_fl.registry import Entry, open_registry
from nerv_fl.tasks.registry import find_task

FACTS: Final = ("best_step", "movement_floor")


def given_weights(config: RunConfig) -> Path | None:
    """Return the file of `bootstrap.weights`, or None if the run pretrains its own.

    A path comes first; what is no file is looked for in the registry, by name or hash, and must be as it was added.

    Raises:
        ConfigError: If it is neither a file nor in the registry, or the entry holds another model.
        DataError: If the registry's file was changed.
        CheckpointError: If the weights are damaged, of another preset or read-out, or without f of the loss.
    """
    reference = config.bootstrap.weights
    if not reference:
        return None
    path = Path(reference)
    if not path.is_file():
        path = _of_registry(reference, task=config.task)
    find_task(config.task).read_start(path, config)
    return path


def provenance(path: Path) -> dict[str, Any]:
    """Return what a manifest says of the encoder that a run starts from.

    Args:
        path: The weights in the run folder.

    Returns:
        Facts of its training, the SHA-256 of the file, and the registry's entry that holds it, or None.

    Raises:
        CheckpointError: If the weights are damaged, or is damaged.
    """
    header, _ = read_tensors(path)
    facts = read_facts(path, header.get("facts", "{}"))
    sha256 = sha256_of(path)
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


def _of_registry(reference: str, *, task: str) -> Path:
    registry = open_registry()
    try:
        entry = registry.find(reference)
    except ConfigError as error:
        raise ConfigError(f"bootstrap.weights is {reference!r}, expected a file or a model: {error}") from error
    registry.check(entry)
    name = _weights_file(entry, task=task)
    if name is None:
        raise ConfigError(
            f"bootstrap.weights is {reference!r}, {entry.kind} in form {entry.form}, expected {_a(task)} in float32"
        )
    return registry.path_of(entry) / name


def _weights_file(entry: Entry, *, task: str) -> str | None:
    """Return the name of an entry's float32 weights for a task, or None."""
    if entry.kind != task:
        return None
    if entry.form == "weights":
        return next((name for name in entry.files if name.endswith(".safetensors")), None)
    return f"{task}.safetensors" if f"{task}.safetensors" in entry.files else None


def _a(task: str) -> str:
    return f"an {task}" if task == "encoder" else f"a {task}"
