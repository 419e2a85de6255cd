"""A run on a Ray cluster of two nodes, both on this machine: the results of a run without one."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nerv_fl.config import build
from nerv_fl.errors import ConfigError
from simulations.engine import LOST_ACTOR, backend_config
from tests.federation.leavings import leavings
from tests.federation.tiny_run import SETTINGS, change_settings, copy_run, run_rounds
from tests.simulations.processes import ROOT, busy_actors, descendants, finish, free_port, start, wait_for

LONG_BLOCKS = {
    "federation.num_rounds": 2,
    "training.local_steps": 4,
    "privacy.max_epsilon": 1e3,
    "simulation.blocks": 6,
}


@contextlib.contextmanager
def ray_node(*arguments: str, worker_ports: int) -> Iterator[int]:
    """Start a Ray node of one CPU, give its pid, and stop it and all that it started."""
    command = [str(Path(sys.executable).parent / "ray"), "start", *arguments, "--node-ip-address=127.0.0.1"]
    command += ["--num-cpus=1", "--block", "--disable-usage-stats"]
    command += [f"--min-worker-port={worker_ports}", f"--max-worker-port={worker_ports + 99}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield node.pid
    finally:
        below = descendants(node.pid)
        for pid in (node.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


@pytest.mark.slow
def test_two_ray_nodes_give_the_results_of_none(tmp_path: Path) -> None:
    joined, alone = copy_run(tmp_path / "joined", **LONG_BLOCKS), copy_run(tmp_path / "alone", **LONG_BLOCKS)
    port, temporary = free_port(), tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    address = f"127.0.0.1:{port}"
    head_arguments = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={temporary}")
    with ray_node(*head_arguments, worker_ports=21000) as head:
        wait_for(lambda: any("raylet" in command for command in descendants(head).values()))
        with ray_node(f"--address={address}", worker_ports=22000) as second:
            wait_for(lambda: any("raylet" in command for command in descendants(second).values()))
            run = start(joined.root, SETTINGS | LONG_BLOCKS, "--resume", "--ray", address)
            for node in (head, second):
                wait_for(partial(busy_actors, node))
            finish(run)

    run_rounds(alone)
    assert leavings(joined) == leavings(alone)


@pytest.mark.slow
def test_an_address_without_a_cluster_is_an_error_in_one_line(tmp_path: Path) -> None:
    folder, address = copy_run(tmp_path / "run"), f"127.0.0.1:{free_port()}"

    run = start(folder.root, SETTINGS, "--resume", "--ray", address)

    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 1
    assert f"error: ray is '{address}', expected the address of a running cluster (" in printed


def test_an_actor_can_have_a_part_of_a_gpu(tmp_path: Path) -> None:
    folder = change_settings(copy_run(tmp_path / "run"), {"simulation.gpus_per_actor": 0.25})

    assert backend_config(folder)["client_resources"] == {"num_cpus": 1, "num_gpus": 0.25, **LOST_ACTOR}


def test_one_and_a_half_gpus_are_refused() -> None:
    message = "simulation.gpus_per_actor is 1.5, expected a fraction or a whole number: Ray divides one GPU only"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build({"simulation.gpus_per_actor": 1.5})
