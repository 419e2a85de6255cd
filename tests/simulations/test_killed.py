"""A run that is killed at any moment goes on to the very results of an undisturbed one, through Flower and Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMALL = (
    "federation.num_nodes=8 federation.cohort_size=6 federation.num_rounds=4 data.samples_per_node=256 "
    "data.certify_chains=512 data.final_chains=64 bootstrap.steps=10 simulation.blocks=2 "
    "training.expected_batch=16 privacy.max_epsilon=20 gate.bound_batches=1000 enclave.workers=1"
)


def start(out: Path, *extra: str) -> subprocess.Popen[bytes]:
    """Start a small run in a process group of its own."""
    settings = [word for setting in SMALL.split() for word in ("--set", setting)]
    command = [sys.executable, "-m", "simulations", "quickstart", "--out", str(out), *settings, *extra]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(timeout=600) == 0


def wait_for_rounds(out: Path, number: int) -> None:
    """Wait until so many rounds, the bootstrap included, are recorded."""
    deadline = time.monotonic() + 300
    path = out / "rounds.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= number):
        assert time.monotonic() < deadline, f"{path} never held {number} rounds"
        time.sleep(0.02)


def results(out: Path) -> tuple[list[object], str]:
    """Return everything of a run that must not depend on how often it was killed."""
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    for record in rounds:
        del record["seconds"]
    return rounds, (out / "rewards.csv").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(out))
    return out


def test_killed_twice_gives_the_same_results(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for rounds, pause_s in ((1, 0.5), (3, 0.1)):
        process = start(out, "--resume")
        wait_for_rounds(out, rounds)
        time.sleep(pause_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finish(start(out, "--resume"))
    assert results(out) == results(undisturbed)


def test_interrupted_run_leaves_a_whole_checkpoint(tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_for_rounds(out, 2)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    finish(start(out, "--resume"))
    assert results(out) == results(undisturbed)
