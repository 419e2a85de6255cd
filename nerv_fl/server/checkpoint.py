"""The federation's state on disk, written atomically after each round: safetensors for vectors, JSON for the rest.

checkpoint/round-00012.safetensors   theta, momentum, second moment, last move
checkpoint/round-00012.json          everything else, and the hash of the file above
checkpoint/latest                    the name of the last whole pair; replaced last
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from nerv_fl.errors import CheckpointError
from nerv_fl.files import write_atomically
from nerv_fl.strategy.aggregate import OptimizerState
from nerv_fl.strategy.rewards import Head
from nerv_fl.strategy.state import FederationState


def save_state(folder: Path, state: FederationState) -> None:
    """Write a state; a crash at any moment leaves the one before it, or this one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"round-{state.round_number:05d}"
    optimizer = state.optimizer
    vectors = save(
        {
            "theta": state.theta_P,
            "momentum": optimizer.momentum_P,
            "second": optimizer.second_P,
            "move": state.move_P,
        }
    )
    facts = {
        "round": state.round_number,
        "optimizer_rounds": state.optimizer.num_rounds,
        "reputations": state.reputations,
        "participations": state.participations,
        "last_heard": state.last_heard,
        "carried_nano": state.carried_nano,
        "balances_nano": state.balances_nano,
        "strikes": state.strikes,
        "ledger": asdict(state.ledger),
        "model_hash": state.model_hash,
        "vectors_sha256": hashlib.sha256(vectors).hexdigest(),
    }
    sealed = facts | {"facts_sha256": _digest(facts)}
    write_atomically(folder / f"{name}.safetensors", vectors)
    write_atomically(folder / f"{name}.json", json.dumps(sealed, indent=1).encode())
    write_atomically(folder / "latest", name.encode())
    _forget_others(folder, keep=name)


def has_state(folder: Path) -> bool:
    """Return whether a whole state was ever written here."""
    return (folder / "latest").exists()


def last_round(folder: Path) -> int:
    """Return the round of the last whole state, 0 if there is none."""
    return load_state(folder).round_number if has_state(folder) else 0


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
    if not isinstance(facts, dict) or facts.pop("facts_sha256", None) != _digest(facts):
        raise CheckpointError(f"{folder / name}.json does not have the content it was written with")
    if "ledger" not in facts:
        raise CheckpointError(f"{folder / name}.json is of a version without a rewards ledger, expected a newer run")
    found = hashlib.sha256(data).hexdigest()
    if found != facts["vectors_sha256"]:
        raise CheckpointError(f"{folder / name}.safetensors has SHA-256 {found}, expected {facts['vectors_sha256']}")
    vectors = load(data)
    return FederationState(
        round_number=facts["round"],
        theta_P=vectors["theta"],
        optimizer=OptimizerState(
            momentum_P=vectors["momentum"], second_P=vectors["second"], num_rounds=facts["optimizer_rounds"]
        ),
        move_P=vectors.get("move", np.zeros_like(vectors["theta"])),  # none in runs of an earlier version
        reputations=tuple(facts["reputations"]),
        participations=tuple(facts["participations"]),
        last_heard=tuple(facts.get("last_heard", [0] * len(facts["reputations"]))),  # as above
        carried_nano=facts["carried_nano"],
        balances_nano=tuple(facts["balances_nano"]),
        strikes=tuple(facts["strikes"]),
        ledger=Head(**facts["ledger"]),
    )


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _forget_others(folder: Path, *, keep: str) -> None:
    """Remove earlier states, and what a killed process left half-written."""
    for path in folder.iterdir():
        if path.stem != keep and path.name != "latest":
            path.unlink()
