"""A round that stops at two doors: `python -m tests.federation.watched_run FOLDER ENVELOPES DOORS`.

At "inside" the round's updates lie open, in whichever process the enclave is; at "after" the round is recorded. A
process says that it stands at a door by a file `NAME.PID` and waits for a file `NAME.open`. No node is in this process.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

from nerv_fl.enclave import process as enclave_process
from nerv_fl.enclave import round as enclave
from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.federation.fake_grid import FakeGrid


def stop_at(door: str) -> None:
    """Wait at a door."""
    doors = Path(sys.argv[3])
    (doors / f"{door}.{os.getpid()}").touch()
    while not (doors / f"{door}.open").exists():
        time.sleep(0.02)


def take_step(*arguments: Any, **keywords: Any) -> Any:
    """Stop before the enclave's next stage."""
    stop_at("inside")
    return original(*arguments, **keywords)


def answer(message: Message, _: Context) -> Message:
    """Reply with what lies in the envelopes' folder, by node."""
    paths = sorted(Path(sys.argv[2]).iterdir(), key=lambda path: int(path.name))
    nodes, envelopes = [int(path.name) for path in paths], [path.read_bytes() for path in paths]
    reply = ConfigRecord({"nodes": nodes, "envelopes": envelopes, "refusing_nodes": []})
    return Message(content=RecordDict({"answer": reply}), reply_to=message)


def on_round(record: RoundRecord, _: Sequence[RewardRow]) -> None:
    """Stop once the round is recorded."""
    if record.round == 1:
        stop_at("after")


def live_watched(*arguments: Any) -> None:
    """Live as the enclave's own process does, which imports this module for it, with the door inside."""
    enclave.take_step = take_step  # type: ignore[attr-defined]
    original_live(*arguments)


original = enclave.take_step  # type: ignore[attr-defined]
original_live = enclave_process._live
if __name__ == "__main__":
    from tests.federation import watched_run

    enclave.take_step = take_step  # type: ignore[attr-defined]
    enclave_process._live = watched_run.live_watched  # type: ignore[assignment]
    grid = FakeGrid(answer, num_supernodes=1)  # type: ignore[arg-type]
    serve(grid, RunFolder(Path(sys.argv[1])), num_supernodes=1, on_round=on_round)
