"""An enclave in a process of its own: the same results, replaced where it dies, and of no use to another run."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence

import pytest

from nerv_fl.crypto import Context, read_envelope
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.enclave.process import PROCESS_NAME
from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server import recorder
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.test_resume import envelopes_of, interrupted
from tests.federation.tiny_run import Forger, Interference, bootstrap_hash, make_grid, refused, run_rounds


def enclaves() -> list[int]:
    """Return the enclaves' processes that run now."""
    return [child.pid for child in multiprocessing.active_children() if child.name == PROCESS_NAME and child.pid]


def kill_in_round(folder: RunFolder, round_number: int) -> None:
    """Kill the enclave as soon as it has opened a round's envelopes."""
    (victim,) = enclaves()
    path = folder.enclave / "admitted.json"
    while not all(key.startswith(f"{round_number}/") for key in json.loads(path.read_text())):
        time.sleep(0.002)
    os.kill(victim, signal.SIGKILL)


@pytest.mark.slow
def test_results_do_not_depend_on_the_enclaves_place_or_deaths(
    new_apart: NewRun, undisturbed: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed between rounds 1 and 2, and in round 3 with its updates open."""
    folder = new_apart()
    seen: list[list[int]] = []
    killer = threading.Thread(target=kill_in_round, args=(folder, 3))

    def on_round(record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
        seen.append(enclaves())
        if record.round == 1:
            os.kill(seen[-1][0], signal.SIGKILL)
        if record.round == 2:
            killer.start()

    run_rounds(folder, on_round=on_round)
    killer.join()

    assert leavings(folder) == leavings(undisturbed)
    assert [len(pids) for pids in seen] == [1, 1, 1, 1]
    assert seen[0] == seen[1]
    assert len({pids[0] for pids in seen}) == 3
    assert [record.getMessage() for record in caplog.records if "enclave" in record.getMessage()] == [
        f"the enclave's process died in round {number}; a new one repeats it" for number in (2, 3)
    ]
    assert enclaves() == []
    assert {path.name for path in folder.enclave.iterdir()} == {
        "identity.sealed", "evidence.json", "vendor-root.pub", "admitted.json",
    }  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_opens_what_its_nodes_have_stored(
    new_apart: NewRun, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run dies with round 1 decided and not recorded: a new process unseals the keys, and nobody trains twice."""
    folder = new_apart()
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_rounds(folder)
    admitted = json.loads((folder.enclave / "admitted.json").read_text())
    assert enclaves() == []

    grid = make_grid(folder)
    serve(grid, folder, num_supernodes=2)

    assert leavings(folder) == leavings(undisturbed)
    assert {read_envelope(envelope).digest for envelope in envelopes_of(grid, 0)} == set(admitted.values())


def test_envelopes_of_an_earlier_run_are_worthless(new_apart: NewRun) -> None:
    """Each run has keys of its own: neither the envelope as it was, nor its content under the new run's name, opens."""
    settings = {"federation.num_rounds": 1, "enclave.place": "process"}
    earlier, later = new_apart("earlier"), new_apart("later", **settings)
    later.update_manifest(run="later")
    shutil.rmtree(later.enclave)
    prepare_identity(later.enclave, run="later", place="process")
    context = Context(run=str(earlier.read_manifest()["run"]), round=1, node=0, base_hash=bootstrap_hash(earlier))
    old = Forger(earlier, context, ())

    def replay(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        stale = {4: old.seal(4, forger.zeros()), 5: old.seal(5, forger.zeros(), run="later")}
        return {node: stale.get(node, envelopes[node]) for node in envelopes}

    run_rounds(later, meddle=Interference(later, 1, replay))

    assert refused(later, 1) == {"wrong-context": 1, "wrong-enclave": 1}
