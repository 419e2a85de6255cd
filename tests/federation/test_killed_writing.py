"""A run that is killed again and again while it writes ends with the very files of one that nobody disturbed."""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nerv_fl.rng import stream
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.tiny_run import run_rounds

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
EVENTFUL = {
    "faults.offline": 0.1,
    "faults.failure": 0.1,
    "faults.deadline_s": 150.0,
    "adversaries.replayer": 0.25,
    "adversaries.sign_flip": 0.125,
    "federation.cohort_size": 8,
    "federation.min_heard_fraction": 0.5,
    "federation.num_rounds": 4,
    "privacy.max_epsilon": 1e3,
}
WRITES_A_ROUND = 70
"""About as often a round of this run writes: a life that ends within so many writes ends anywhere in a round."""


def test_killed_at_random_writes_until_it_is_done(new_run: NewRun) -> None:
    killed, whole = new_run("killed", **EVENTFUL), new_run("whole", **EVENTFUL)
    drawn = stream(7, "kill while writing")
    lives = []

    while True:
        at = int(drawn.integers(1, WRITES_A_ROUND + 1))
        command = [sys.executable, "-m", "tests.federation.die_writing", str(killed.root), str(at)]
        ended = subprocess.run(command, cwd=ROOT, timeout=600, capture_output=True, text=True, check=False)
        lives.append(at)
        log.warning("life %d ends at write %d, after round %d", len(lives), at, len(killed.rounds()) - 1)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    run_rounds(whole)

    assert len(lives) > 5
    assert leavings(killed) == leavings(whole)
