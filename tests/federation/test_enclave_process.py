"""An enclave in a process of its own: the same results, its keys sealed, and replaced where it dies."""

import multiprocessing
import os
import signal
from collections.abc import Sequence

from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server.enclave_process import PROCESS_NAME
from nerv_fl.server.folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.tiny_run import run_rounds


def enclaves() -> list[int]:
    """Return the enclaves' processes that run now."""
    return [child.pid for child in multiprocessing.active_children() if child.name == PROCESS_NAME and child.pid]


def test_results_do_not_depend_on_the_enclaves_place(new_apart: NewRun, undisturbed: RunFolder) -> None:
    """And a process that is killed between two rounds is replaced, once, with the same keys."""
    folder = new_apart()
    seen: list[list[int]] = []

    def kill_after_the_first(record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
        seen.append(enclaves())
        if record.round == 1:
            os.kill(seen[-1][0], signal.SIGKILL)

    run_rounds(folder, on_round=kill_after_the_first)

    assert leavings(folder) == leavings(undisturbed)
    assert [len(pids) for pids in seen] == [1, 1, 1, 1]
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert enclaves() == []
    assert {path.name for path in folder.enclave.iterdir()} == {
        "identity.sealed", "evidence.json", "vendor-root.pub", "admitted.json",
    }  # fmt: skip
