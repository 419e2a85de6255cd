"""`flwr run` on the same apps: Flower bundles the project, starts a SuperLink, and gives the same results."""

import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nerv_fl.records import RoundRecord, Seconds, read_rounds
from tests.simulations.processes import ROOT, free_port

pytestmark = pytest.mark.slow

NO_TIME = Seconds(**{item.name: 0.0 for item in fields(Seconds)})
SETTINGS = (
    "federation.num_nodes=8 federation.cohort_size=6 federation.num_rounds=2 data.samples_per_node=256 "
    "data.certify_chains=512 data.final_chains=64 bootstrap.steps=10 simulation.blocks=2 "
    "training.expected_batch=16 privacy.max_epsilon=20 gate.bound_batches=1000 enclave.workers=1"
)


def listeners(environment: dict[str, str]) -> list[int]:
    """Return the pids of processes that were started with this FLWR_HOME."""
    wanted = f"FLWR_HOME={environment['FLWR_HOME']}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
            except OSError:
                continue
    return pids


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "FLWR_HOME": str(tmp_path / "flower"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def test_gives_the_results_of_nerv_fl_simulate(tmp_path: Path, environment: dict[str, str]) -> None:
    flower, own = tmp_path / "by-flower", tmp_path / "own"
    command = ["flwr", "run", ".", "--stream"]
    command += ["--federation-config", "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=2"]
    command += ["--run-config", f'recipe="quickstart" out="{flower}" set="{SETTINGS}"']
    try:
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600, stdout=subprocess.DEVNULL)
    finally:
        for pid in listeners(environment):
            os.kill(pid, signal.SIGTERM)
    settings = [word for setting in SETTINGS.split() for word in ("--set", setting)]
    subprocess.run(
        [sys.executable, "-m", "simulations", "quickstart", "--out", own, *settings], check=True, timeout=600
    )
    assert (flower / "report.html").exists()
    assert records(flower) == records(own)
    assert (flower / "rewards.csv").read_text() == (own / "rewards.csv").read_text()


def records(out: Path) -> list[RoundRecord]:
    """Return every round's record without its seconds: model hash, gate, values and money."""
    return [replace(record, seconds=NO_TIME) for record in read_rounds(out / "rounds.jsonl")]
