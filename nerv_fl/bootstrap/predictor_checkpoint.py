"""The predictor's training on disk: weights now and at their best, Adam's moments, and how it stands."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from nerv_fl.bootstrap.distill import Distillation, Heldout, Progress
from nerv_fl.bootstrap.training import moments, set_moments
from nerv_fl.errors import CheckpointError, ConfigError


def snapshot(run: Distillation, *, begun: Mapping[str, Any]) -> bytes:
    """Return a training, with the settings and data it began with, as bytes."""
    adam_steps, first_P, second_P = moments(run.optimizer)
    now = {f"now.{name}": parameter.detach() for name, parameter in run.model.named_parameters()}
    best = {f"best.{name}": parameter for name, parameter in run.best.items()}
    facts = {"begun": dict(begun), "standing": asdict(run.standing), "adam_steps": adam_steps}
    return save({**now, **best, "first_P": first_P, "second_P": second_P}, metadata={"facts": json.dumps(facts)})


def restore(run: Distillation, checkpoint: Path, *, begun: Mapping[str, Any]) -> None:
    """Put a training's checkpoint into one that was just built.

    Raises:
        CheckpointError: If it is missing or damaged.
        ConfigError: If it began with other settings or data; the first that differs is named.
    """
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint} does not exist, expected the checkpoint of a training to resume")
    data = checkpoint.read_bytes()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["facts"])
        stored, table = facts["begun"], facts["standing"]
        for name, value in begun.items():
            if stored[name] != value:
                raise ConfigError(
                    f"{name} is {value!r}, expected {stored[name]!r}: the training in {checkpoint} began with it"
                )
        run.model.load_state_dict({name: tensors[f"now.{name}"] for name in run.best})
        run.best = {name: tensors[f"best.{name}"] for name in run.best}
        set_moments(run.optimizer, facts["adam_steps"], first_P=tensors["first_P"], second_P=tensors["second_P"])
        best, *curve = (None if row is None else Heldout(**row) for row in (table["best"], *table["curve"]))
        run.standing = Progress(**{**table, "best": best, "curve": tuple(point for point in curve if point)})
    except ConfigError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint} cannot be read ({error}), expected the checkpoint of a predictor"
        ) from error
