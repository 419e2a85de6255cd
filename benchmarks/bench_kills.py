"""A process that writes checkpoints without pause is killed again and again; each time what it left is read.

Run: python -m benchmarks.bench_kills [--cycles 1000] [--parameters 49376]

Each cycle resumes from what the last one left: a process writes states one after another until SIGKILL comes, after a
random time that may fall anywhere in a write. Every number of a state's vectors is its round, so no mixture of two
states can pass for one. Beside it stands the same with files written in place.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.measure import print_setting, print_table
from nerv_fl.config import RewardsConfig
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.rng import stream
from nerv_fl.server import checkpoint
from nerv_fl.server.checkpoint import has_state, load_state, save_state
from nerv_fl.strategy.server_state import FederationState
from nerv_fl.types import Vector

NUM_NODES: Final = 100
LONGEST_S: Final = 0.2
"""A few times what a state of the quickstart takes to write."""

Writer = Callable[[Path, bytes], None]


class Kills(NamedTuple):
    """What the processes left: how often nothing readable, how often a state that was never written, and how many."""

    unreadable: int
    mixed: int
    written: int


def main() -> None:
    """Kill, read and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--parameters", type=int, default=49_376)
    options = parser.parse_args()
    print_setting(
        f"{options.cycles} kills, states of {options.parameters} parameters, {NUM_NODES} nodes",
        packages=["numpy", "safetensors"],
        threads="one process at a time",
    )
    rows = []
    for name, writer in (("as it is", write_atomically), ("files written in place", _in_place)):
        with tempfile.TemporaryDirectory() as folder, patch.object(checkpoint, "write_atomically", writer):
            found = kill(Path(folder), cycles=options.cycles, num_parameters=options.parameters)
        rows.append([name, *(f"{count:,}" for count in found)])
    print_table(["", "unreadable", "mixed", "states written"], rows)
    if rows[0][1:3] != ["0", "0"]:
        raise SystemExit("a kill left a state that cannot be read, or never was")


def kill(folder: Path, *, cycles: int, num_parameters: int) -> Kills:
    """Run a folder's writer for so many lives."""
    drawn, unreadable, mixed, state = stream(1, "kills"), 0, 0, _first(num_parameters)
    save_state(folder, state)
    for _ in range(cycles):
        child = os.fork()
        if not child:
            _write_for_ever(folder, state)
        time.sleep(float(drawn.uniform(0, LONGEST_S)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            found = load_state(folder) if has_state(folder) else None
        except CheckpointError:
            found = None
        if found is None:
            unreadable += 1
            save_state(folder, state)
        elif found.round_number < state.round_number or not _is_whole(found):
            mixed += 1
        else:
            state = found
    return Kills(unreadable=unreadable, mixed=mixed, written=state.round_number)


def _write_for_ever(folder: Path, state: FederationState) -> None:
    while True:
        state = _at(state, state.round_number + 1)
        save_state(folder, state)


def _first(num_parameters: int) -> FederationState:
    zeros_P = np.zeros(num_parameters, dtype=np.float32)
    return FederationState.first(zeros_P, num_nodes=NUM_NODES, rewards=RewardsConfig(), run="kills")


def _at(state: FederationState, number: int) -> FederationState:
    """Return a state all of whose numbers are its round's."""
    theta_P = np.full_like(state.theta_P, number)
    optimizer = replace(state.optimizer, momentum_P=theta_P, second_P=theta_P, num_rounds=number)
    return replace(
        state,
        round_number=number,
        theta_P=theta_P,
        move_P=theta_P,
        optimizer=optimizer,
        participations=(number,) * NUM_NODES,
        last_heard=(number,) * NUM_NODES,
    )


def _is_whole(state: FederationState) -> bool:
    expected = _at(state, state.round_number)
    return np.array_equal(_vectors(state), _vectors(expected)) and state.participations == expected.participations


def _vectors(state: FederationState) -> Vector:
    return np.stack([state.theta_P, state.move_P, state.optimizer.momentum_P, state.optimizer.second_P])


def _in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


if __name__ == "__main__":
    main()
