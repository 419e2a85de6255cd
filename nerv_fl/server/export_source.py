"""The model that a run has trained so far, as a model to export."""

from dataclasses import asdict
from typing import Final

import torch

from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.export.export_source import Source
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import final_measures
from nerv_fl.server.checkpoint import has_state, load_state
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.server_state import FederationState
from nerv_fl.tasks.registry import find_task

EXPORTED: Final = ("encoder", "forecaster")
"""Tasks whose models have forms that other programs load."""


def trained_model(folder: RunFolder) -> Source:
    """Return the model of a run's last whole checkpoint, with the record of its round.

    Raises:
        DataError: If the run has no checkpoint yet, or trains a task that cannot be exported.
        CheckpointError: If the checkpoint or the start is damaged.
    """
    if not has_state(folder.checkpoint):
        raise DataError(f"{folder.root} holds a run without a checkpoint, expected one with a finished round")
    config, state = folder.config, load_state(folder.checkpoint)
    if config.task not in EXPORTED:
        raise DataError(f"{folder.root} holds a run of task {config.task!r}, expected one of: {', '.join(EXPORTED)}")
    task = find_task(config.task)
    _, constants = task.read_start(folder.bootstrap_path, config)
    model = task(config, constants).build()
    set_flat(model, torch.from_numpy(state.theta_P))
    return Source(
        kind=config.task,
        preset=config.model.preset if isinstance(model, Encoder) else "",
        model=model.eval(),
        origin={
            "run": folder.read_manifest()["run"],
            "round": state.round_number,
            "code_hash": folder.read_manifest().get("code_hash"),
            "model_hash": vector_hash(get_flat(model).numpy()),
        },
        facts=constants,
        metrics=_metrics(folder, state),
        epoch=sum(record.accepted for record in folder.rounds() if 0 < record.round <= state.round_number),
    )


def _metrics(folder: RunFolder, state: FederationState) -> dict[str, object]:
    manifest = folder.read_manifest()
    is_final = final_measures(manifest, round_number=state.round_number, model_hash=state.model_hash)
    keys = ("references", "final") if is_final else ("references",)
    metrics: dict[str, object] = {key: manifest[key] for key in keys if key in manifest}
    records = [record for record in folder.rounds() if record.round <= state.round_number]
    if records:
        metrics["round"] = asdict(records[-1])
    return metrics
