"""A pretraining on disk: all that the next step depends on, in safetensors, with its facts in the header.

    theta_P, best_P              the weights now, and the best
    moment1_P, moment2_P         Adam's
    header                       settings, the data's hash, how it stands, the state of both random streams

Shapes: P parameters.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from nerv_fl.bootstrap.training import Point, Pretraining, Standing, moments, set_moments
from nerv_fl.config import Flat, RunConfig, as_table, flatten
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.models.evaluate import EncoderMeasures

FORMAT: Final = "nerv-fl pretraining 1"
DEPENDS_ON: Final = ("seed", "model.", "bootstrap.", "privacy.", "data.heldout_chains", "enclave.chunk")
FREE_TO_CHANGE: Final = ("bootstrap.checkpoint_every", "bootstrap.weights")
HEADER: Final = "__metadata__"


def checkpoint_path(out: Path) -> Path:
    """Return where the checkpoint of a pretraining that writes to `out` lies: beside it, until it is finished.

    >>> checkpoint_path(Path("encoder.safetensors")).name
    'encoder.safetensors.resume'
    """
    return out.with_name(f"{out.name}.resume")


def begun_with(config: RunConfig, *, data_sha256: str, num_workers: int) -> Flat:
    """Return all that the bits of a pretraining depend on: settings, data, number of workers."""
    settings = {
        key: value
        for key, value in flatten(as_table(config)).items()
        if key.startswith(DEPENDS_ON) and key not in FREE_TO_CHANGE
    }
    return settings | {"data": data_sha256, "workers": num_workers}


def snapshot(run: Pretraining, *, begun: Flat) -> bytes:
    """Return a pretraining as bytes."""
    steps, moment1_P, moment2_P = moments(run.optimizer)
    tensors = {
        "theta_P": get_flat(run.encoder).cpu(),
        "best_P": run.best_P.cpu(),
        "moment1_P": moment1_P,
        "moment2_P": moment2_P,
    }
    facts = {
        "begun": begun,
        "standing": asdict(run.standing),
        "optimizer_steps": steps,
        "batches": _stream_state(run.batches),
        "noise": _stream_state(run.noise),
    }
    return save(tensors, metadata={"format": FORMAT, "facts": json.dumps(facts)})


def restore(run: Pretraining, data: bytes, *, source: Path) -> None:
    """Put a snapshot into a pretraining that began with the same settings and data.

    Args:
        run: As it was built.
        data: What `snapshot` returned; `read_begun` has checked what it began with.
        source: Where it was read, for messages.

    Raises:
        CheckpointError: If it is damaged, or of another preset.
    """
    facts = _facts(data, source=source)
    tensors = load(data)
    try:
        set_flat(run.encoder, tensors["theta_P"])
        set_moments(
            run.optimizer,
            facts["optimizer_steps"],
            first_P=tensors["moment1_P"],
            second_P=tensors["moment2_P"],
        )
        run.best_P = tensors["best_P"].to(run.best_P.device)
        run.standing = _standing(facts["standing"])
        _set_stream_state(run.batches, facts["batches"])
        _set_stream_state(run.noise, facts["noise"])
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{source} is damaged ({error}), expected a whole pretraining") from error


def require_begun(data: bytes, begun: Flat, *, source: Path) -> None:
    """Raise unless a snapshot is of a pretraining that began with these settings, data and workers.

    Raises:
        CheckpointError: If it is not a snapshot.
        ConfigError: If it began with another setting, named with both values.
    """
    # A setting that is newer than the checkpoint had its default then.
    stored = flatten(as_table(RunConfig())) | _facts(data, source=source)["begun"]
    for key, value in begun.items():
        if stored.get(key) != value:
            name = {"data": "SHA-256 of the data", "workers": "number of workers"}.get(key, key)
            expected = stored.get(key)
            raise ConfigError(f"{name} is {value!r}, expected {expected!r}: the training in {source} began with it")


def _facts(data: bytes, *, source: Path) -> dict[str, Any]:
    try:
        load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])[HEADER]
        found = header["format"]
        facts: dict[str, Any] = json.loads(header["facts"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} cannot be read ({error}), expected the checkpoint of a pretraining") from error
    if found != FORMAT:
        raise CheckpointError(f"{source} holds format {found!r}, expected {FORMAT!r}")
    return facts


def _standing(table: dict[str, Any]) -> Standing:
    best, *curve = (_point(row) for row in (table["best"], *table["curve"]))
    return Standing(step=table["step"], best=best, curve=tuple(curve), waited=table["waited"], stopped=table["stopped"])


def _point(row: dict[str, Any]) -> Point:
    return Point(step=row["step"], measures=EncoderMeasures(**row["measures"]))


def _stream_state(rng: np.random.Generator) -> dict[str, Any]:
    state = dict(rng.bit_generator.state)
    words = {name: state["state"][name].tolist() for name in ("counter", "key")}
    return {**state, "state": words, "buffer": state["buffer"].tolist()}


def _set_stream_state(rng: np.random.Generator, table: dict[str, Any]) -> None:
    words = {name: np.array(values, dtype=np.uint64) for name, values in table["state"].items()}
    buffer = np.array(table["buffer"], dtype=np.uint64)
    rng.bit_generator.state = {**table, "state": words, "buffer": buffer}
