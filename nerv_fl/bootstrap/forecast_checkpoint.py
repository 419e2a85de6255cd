"""The forecaster's training on disk: where it stands, whole or absent, and what it belongs to."""

import io
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nerv_fl.bootstrap.forecast_fit import Evaluation, ForecastSettings, Progress
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically


def identity(settings: ForecastSettings, *, content_sha256: str) -> dict[str, Any]:
    """Return what must be equal for a training to go on: every setting, and the data."""
    return {**asdict(settings), "content_sha256": content_sha256}


def write_progress(path: Path, progress: Progress, *, belongs_to: dict[str, Any]) -> None:
    """Replace a checkpoint in one step.

    Raises:
        OSError: If it cannot be written; the earlier one is then still there.
    """
    table = {
        "belongs_to": belongs_to,
        "history": [asdict(entry) for entry in progress.history],
        "best": asdict(progress.best),
        "best_weights": progress.best_weights,
        "weights": progress.weights,
        "optimizer": progress.optimizer,
    }
    content = io.BytesIO()
    torch.save(table, content)
    write_atomically(path, content.getvalue())


def read_progress(path: Path, *, belongs_to: dict[str, Any]) -> Progress:
    """Read a checkpoint.

    Raises:
        CheckpointError: If it is missing, damaged, or of another training; the first setting that differs is named.
    """
    try:
        table = torch.load(path, weights_only=True)
        found = table["belongs_to"]
        progress = Progress(
            history=tuple(Evaluation(**entry) for entry in table["history"]),
            best=Evaluation(**table["best"]),
            best_weights=table["best_weights"],
            weights=table["weights"],
            optimizer=table["optimizer"],
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} cannot be read ({reason}), expected a checkpoint of the forecaster") from error
    for name, expected in belongs_to.items():
        if found.get(name) != expected:
            raise CheckpointError(
                f"{path} belongs to a training with {name} {found.get(name)!r}, expected {expected!r}: "
                "use the same settings and data, or another folder"
            )
    return progress
