"""The federation's state on disk, written atomically after each round: safetensors for vectors, JSON for the rest.

checkpoint/round-00012.safetensors   theta, momentum, second moment
checkpoint/round-00012.json          everything else, and the hash of the file above
checkpoint/latest                    the name of the last whole pair; replaced last
"""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from nerv_fl.errors import CheckpointError
from nerv_fl.files import write_atomically
from nerv_fl.strategy.aggregate import OptimizerState
from nerv_fl.strategy.state import FederationState


def save_state(folder: Path, state: FederationState) -> None:
    """Write a state; a crash at any moment leaves the one before it, or this one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"round-{state.round_number:05d}"
    vectors = save({"theta": state.theta_P, "momentum": state.optimizer.momentum_P, "second": state.optimizer.second_P})
    facts = {
        "round": state.round_number,
        "optimizer_rounds": state.optimizer.num_rounds,
        "reputations": state.reputations,
        "participations": state.participations,
        "carried_nano": state.carried_nano,
        "model_hash": state.model_hash,
        "sha256": hashlib.sha256(vectors).hexdigest(),
    }
    write_atomically(folder / f"{name}.safetensors", vectors)
    write_atomically(folder / f"{name}.json", json.dumps(facts, indent=1).encode())
    write_atomically(folder / "latest", name.encode())
    _forget_others(folder, keep=name)


def has_state(folder: Path) -> bool:
    """Return whether a whole state was ever written here."""
    return (folder / "latest").exists()


def load_state(folder: Path) -> FederationState:
    """Read the last whole state.

    Raises:
        CheckpointError: If a file is missing, damaged, or does not match the others.
    """
    try:
        name = (folder / "latest").read_text(encoding="utf-8").strip()
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        data = (folder / f"{name}.safetensors").read_bytes()
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} holds no readable checkpoint: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != facts.get("sha256"):
        raise CheckpointError(f"{folder / name}.safetensors has SHA-256 {found}, expected {facts.get('sha256')}")
    try:
        vectors = load(data)
        state = FederationState(
            round_number=int(facts["round"]),
            theta_P=vectors["theta"],
            optimizer=OptimizerState(
                momentum_P=vectors["momentum"], second_P=vectors["second"], num_rounds=int(facts["optimizer_rounds"])
            ),
            reputations=tuple(float(item) for item in facts["reputations"]),
            participations=tuple(int(item) for item in facts["participations"]),
            carried_nano=int(facts["carried_nano"]),
        )
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder / name}.json is not a checkpoint: {error!r}") from error
    return state


def _forget_others(folder: Path, *, keep: str) -> None:
    for path in folder.glob("round-*"):
        if path.stem != keep:
            path.unlink()
