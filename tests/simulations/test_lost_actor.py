"""A Ray actor that dies in the middle of a block: another takes the block up, and nobody can tell afterwards."""

import os
import signal
from pathlib import Path

import pytest

from tests.federation.tiny_run import SETTINGS, Trace, copy_run, run_rounds
from tests.simulations.processes import busy_actors, finish, start, wait_for

pytestmark = pytest.mark.slow

LONG_BLOCKS = {
    "federation.num_rounds": 2,
    "training.local_steps": 4,
    "privacy.max_epsilon": 1e3,
    "simulation.blocks": 6,
    "simulation.actors": 2,
}


def test_a_killed_actor_costs_its_block_a_retry_and_nothing_else(tmp_path: Path) -> None:
    killed, undisturbed = copy_run(tmp_path / "killed", **LONG_BLOCKS), copy_run(tmp_path / "whole", **LONG_BLOCKS)
    run = start(killed.root, SETTINGS | LONG_BLOCKS, "--resume")
    victim = wait_for(lambda: busy_actors(run.pid))[0]

    os.kill(victim, signal.SIGKILL)
    printed = finish(run)

    assert "ClientAppActor.run failed. There are 1 retries remaining" in printed
    run_rounds(undisturbed)
    assert Trace.of(killed) == Trace.of(undisturbed)
    for record in killed.rounds()[1:]:
        assert record.nodes is not None
        assert record.nodes.heard == record.nodes.sampled
