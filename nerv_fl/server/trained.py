"""The encoder that a run has trained so far, as a model to export."""

from dataclasses import asdict

import torch

from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.export.source import Source, encoder_source
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder
from nerv_fl.server.checkpoint import has_state, load_state
from nerv_fl.server.folder import RunFolder


def trained_encoder(folder: RunFolder) -> Source:
    """Return the encoder of a run's last whole checkpoint, with the record of its round.

    Raises:
        DataError: If the run has no checkpoint yet.
        CheckpointError: If the checkpoint or the bootstrap is damaged.
    """
    if not has_state(folder.checkpoint):
        raise DataError(f"{folder.root} holds a run without a checkpoint, expected one with a finished round")
    state, model, manifest = load_state(folder.checkpoint), folder.config.model, folder.read_manifest()
    encoder = Encoder(get_preset(model.preset), readout=model.readout)
    facts = load_encoder(folder.bootstrap_path, encoder)
    set_flat(encoder, torch.from_numpy(state.theta_P))
    records = [record for record in folder.rounds() if record.round <= state.round_number]
    metrics: dict[str, object] = {key: manifest[key] for key in ("references", "final") if key in manifest}
    if records:
        metrics["round"] = asdict(records[-1])
    return encoder_source(
        encoder,
        origin={"run": manifest["run"], "round": state.round_number, "code_hash": manifest.get("code_hash")},
        facts={"movement_floor": facts["movement_floor"]},
        metrics=metrics,
        epoch=sum(record.accepted for record in records if record.round),
    )
