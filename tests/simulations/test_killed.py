"""A run that is killed at any moment goes on to the very results of an undisturbed one, through Flower and Ray."""

import logging
import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from nerv_fl.config import Flat
from nerv_fl.rng import stream
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.shutdown import TERMINATED
from tests.federation.leavings import leavings
from tests.federation.test_killed_writing import EVENTFUL
from tests.federation.tiny_run import SETTINGS, copy_run, run_rounds
from tests.simulations.processes import BUSY_ACTOR, busy_actors, descendants, finish, start, wait_for

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

RUN: Final[Flat] = SETTINGS | EVENTFUL | {"federation.num_rounds": 12, "simulation.actors": 2, "enclave.workers": 2}
VICTIMS: Final = ("a Ray actor", "a Ray actor", "a worker of the enclave", "the run", "the run")
COMMANDS: Final = {"a Ray actor": BUSY_ACTOR, "a worker of the enclave": "from multiprocessing.spawn"}


def find(victim: str, run: subprocess.Popen[str]) -> int:
    """Return the process of a victim as soon as there is one."""
    if victim == "the run":
        return run.pid
    name = COMMANDS[victim]
    return min(wait_for(lambda: [pid for pid, command in descendants(run.pid).items() if name in command]))


def end_of(run: subprocess.Popen[str]) -> int:
    """Return the exit status of a run that is about to end, whatever it printed."""
    assert run.stdout is not None
    with run.stdout:
        return run.wait(timeout=600)


def num_recorded(folder: RunFolder) -> int:
    return folder.rounds_path.read_text().count("\n") if folder.rounds_path.exists() else 0


def has_more(folder: RunFolder, run: subprocess.Popen[str], *, than: int) -> bool:
    assert run.poll() is None, f"the run ended by itself: {run.communicate()[0]}"
    return num_recorded(folder) > than


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = copy_run(tmp_path_factory.mktemp("undisturbed") / "run", **RUN | {"enclave.workers": 1})
    run_rounds(folder)
    return folder


def test_killed_at_five_random_moments(undisturbed: RunFolder, tmp_path: Path) -> None:
    folder, drawn = copy_run(tmp_path / "run", **RUN), stream(8, "kill")
    run = start(folder.root, RUN, "--resume")

    for victim in drawn.permutation(VICTIMS):
        pause_s = float(drawn.uniform(0, 2))
        wait_for(partial(has_more, folder, run, than=num_recorded(folder)))  # no block is hit twice
        wait_for(partial(busy_actors, run.pid))
        with pytest.raises(subprocess.TimeoutExpired):  # it is not done
            run.wait(timeout=pause_s)
        pid = find(victim, run)
        os.kill(pid, signal.SIGKILL)
        log.warning("%s is killed %.2f s after a node was asked, in round %d", victim, pause_s, num_recorded(folder))
        if victim == "the run":
            assert end_of(run) == -signal.SIGKILL
            run = start(folder.root, RUN, "--resume")
    finish(run)

    assert leavings(folder) == leavings(undisturbed)


def test_an_interrupted_run_leaves_a_whole_checkpoint(undisturbed: RunFolder, tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **RUN)
    run = start(folder.root, RUN, "--resume")
    wait_for(partial(has_more, folder, run, than=1))
    run.send_signal(signal.SIGINT)
    assert end_of(run) != 0

    finish(start(folder.root, RUN, "--resume"))

    assert leavings(folder) == leavings(undisturbed)


def test_sigterm_ends_a_run_after_its_round(undisturbed: RunFolder, tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **RUN)
    run = start(folder.root, RUN, "--resume")
    wait_for(partial(has_more, folder, run, than=1))
    wait_for(partial(busy_actors, run.pid))
    begun = num_recorded(folder)
    run.send_signal(signal.SIGTERM)
    printed, _ = run.communicate(timeout=600)
    assert run.returncode == TERMINATED, printed
    assert f"stopped after round {num_recorded(folder) - 1}; --resume goes on from it" in printed
    assert num_recorded(folder) > begun

    finish(start(folder.root, RUN, "--resume"))

    assert leavings(folder) == leavings(undisturbed)
