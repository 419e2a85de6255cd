"""The federation's state on disk, written atomically after each round: safetensors for vectors, JSON for the rest.

checkpoint/round-00012.safetensors   theta, momentum, second moment, last move
checkpoint/round-00012.json          everything else, and the hash of the file above
checkpoint/latest                    the name of the last whole pair; replaced last

The pair before is kept too, so that there is a state to go back to when the last one is damaged.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load, save

from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.rewards import Head
from nerv_fl.strategy.server_state import FederationState

LATEST: Final = "latest"
NUM_KEPT: Final = 2
"""States that are kept: the last one and the one before."""

_FILE: Final = re.compile(r"round-(\d+)\.(json|safetensors)")


def save_state(folder: Path, state: FederationState) -> None:
    """Write a state; a crash at any moment leaves the one before it, or this one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    name = state_name(state.round_number)
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
    write_atomically(folder / LATEST, name.encode())
    _forget_others(folder, newest=state.round_number)


def has_state(folder: Path) -> bool:
    """Return whether a whole state was ever written here."""
    return (folder / LATEST).exists()


def last_round(folder: Path) -> int:
    """Return the round of the last whole state, 0 if there is none."""
    return load_state(folder).round_number if has_state(folder) else 0


def state_name(round_number: int) -> str:
    """Return the name of a state's two files, without their endings.

    >>> state_name(12)
    'round-00012'
    """
    return f"round-{round_number:05d}"


def stored_rounds(folder: Path) -> list[int]:
    """Return the rounds of which there are files, whole or not, ascending."""
    matches = (_FILE.fullmatch(path.name) for path in folder.glob("round-*"))
    return sorted({int(match[1]) for match in matches if match})


def load_state(folder: Path, round_number: int | None = None) -> FederationState:
    """Read a whole state.

    Args:
        folder: The checkpoint folder.
        round_number: The state's round; that of the last one if None.

    Raises:
        CheckpointError: If a file is missing, damaged, or does not match the others.
    """
    name = _latest(folder) if round_number is None else state_name(round_number)
    path = folder / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        data = (folder / f"{name}.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder} holds no readable checkpoint: {error}, which {folder / LATEST} names"
        ) from error
    except ValueError as error:  # text that is not JSON, or not UTF-8
        raise CheckpointError(f"{folder} holds no readable checkpoint: {path} is not JSON ({error})") from error
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


def _latest(folder: Path) -> str:
    """Return the name of the last whole state."""
    path = folder / LATEST
    try:
        name = path.read_bytes().decode("ascii", "replace").strip()
    except OSError as error:
        raise CheckpointError(f"{folder} holds no readable checkpoint: {error}") from error
    if not re.fullmatch(r"round-\d+", name):
        raise CheckpointError(f"{path} holds {name!r}, expected the name of a checkpoint such as 'round-00012'")
    return name


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _forget_others(folder: Path, *, newest: int) -> None:
    """Remove all but the newest states up to this one, and what a killed process left half-written."""
    kept = [number for number in stored_rounds(folder) if number <= newest][-NUM_KEPT:]
    names = {LATEST, *(f"{state_name(number)}{ending}" for number in kept for ending in (".json", ".safetensors"))}
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()
