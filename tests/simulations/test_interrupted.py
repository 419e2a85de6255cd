"""Ctrl-C, which a terminal sends to every process of a command, in each phase of a command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.federation.tiny_run import SETTINGS
from tests.simulations.processes import ROOT, busy_actors, descendants, wait_for

pytestmark = pytest.mark.slow

INTERRUPTED: Final = 130
RECIPE: Final = {**SETTINGS, "simulation.actors": 2, "enclave.workers": 2, "federation.num_rounds": 200}
OVERRIDES: Final = [word for key, value in RECIPE.items() for word in ("--set", f"{key}={json.dumps(value)}")]
SIMULATE: Final = ["simulate", "quickstart", *OVERRIDES]


def imports_torch(_out: Path, process: subprocess.Popen[str]) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def makes_data(out: Path, _process: subprocess.Popen[str]) -> bool:
    return (out / "data").exists()


def trains_centrally(out: Path, _process: subprocess.Popen[str]) -> bool:
    return len(list((out / "data").glob("*.h5"))) >= 5 if out.exists() else False


def starts_ray(_out: Path, process: subprocess.Popen[str]) -> bool:
    return any("gcs_server" in name for name in descendants(process.pid).values())


def trains_nodes(_out: Path, process: subprocess.Popen[str]) -> bool:
    return bool(busy_actors(process.pid))


def values_nodes(out: Path, process: subprocess.Popen[str]) -> bool:
    return (out / "rewards.csv").exists() and not busy_actors(process.pid)


def has_workers(_out: Path, process: subprocess.Popen[str]) -> bool:
    return sum("from multiprocessing.spawn" in name for name in descendants(process.pid).values()) >= 2


Phase = Callable[[Path, subprocess.Popen[str]], bool]

LEDGER: Final = ["datagen", "ledger", "--preset", "full", "--workers", "2"]
PHASES: list[tuple[list[str], Phase]] = [
    (SIMULATE, imports_torch),
    (SIMULATE, makes_data),
    (SIMULATE, trains_centrally),
    (SIMULATE, starts_ray),
    (SIMULATE, trains_nodes),
    (SIMULATE, values_nodes),
    (["sweep", "quickstart", "--over", "privacy.max_epsilon=8,9", *OVERRIDES], trains_nodes),
    (LEDGER, has_workers),
]


@pytest.mark.parametrize(
    ("arguments", "phase"), PHASES, ids=[f"{arguments[0]} {phase.__name__}" for arguments, phase in PHASES]
)
def test_an_interrupt_ends_a_command_and_its_workers_in_one_line(
    tmp_path: Path, arguments: list[str], phase: Phase
) -> None:
    """Neither the command nor a worker shows a traceback, and no process stays."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from nerv_fl.cli.main import main; main()", *arguments, "--out", str(out)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    wait_for(partial(phase, out, process), seconds=300)
    children = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=120)

    assert process.returncode == INTERRUPTED, shown
    assert "Traceback" not in shown
    assert "KeyboardInterrupt" not in shown
    wait_for(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()], seconds=30)
