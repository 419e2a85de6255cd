"""A run that is killed goes on from its last checkpoint, and nobody can tell afterwards."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from nerv_fl.crypto import read_envelope
from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server import recorder
from nerv_fl.server.app import serve
from nerv_fl.server.checkpoint import save_state
from nerv_fl.server.monitor import Monitor
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.nerv import NervStrategy
from nerv_fl.strategy.server_state import FederationState
from tests.federation.conftest import NewRun
from tests.federation.fake_grid import FakeGrid
from tests.federation.tiny_run import Trace, make_grid, run_rounds


class PowerCut(BaseException):
    """Ends a run at once, as a kill would: nothing catches it."""


def test_stopped_between_rounds(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run()

    def stop_after_the_first(record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rounds(folder, on_round=stop_after_the_first)
    assert len(folder.rounds()) == 2
    run_rounds(folder)

    assert Trace.of(folder) == Trace.of(undisturbed)
    assert folder.read_manifest()["final"] == undisturbed.read_manifest()["final"]


def test_killed_after_the_record_and_before_the_checkpoint(
    new_run: NewRun, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run()
    first = kill_at_checkpoint(folder, monkeypatch, round_number=2)
    assert [record.round for record in folder.rounds()] == [0, 1, 2]
    spent = spending(folder)
    cohort = nodes_asked(first, -2)

    again = make_grid(folder)
    serve(again, folder, num_supernodes=2)

    assert Trace.of(folder) == Trace.of(undisturbed)
    assert envelopes_of(again, 0) == envelopes_of(first, -2)
    for node in cohort:
        rounds = {key.split("/")[1] for key in spending(folder)[node]}
        assert spent[node].items() <= spending(folder)[node].items()
        assert spending(folder)[node] == dict.fromkeys(spending(folder)[node], 1)
        assert "2" in rounds


def test_killed_while_a_line_was_being_written(
    new_run: NewRun, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run()
    kill_at_checkpoint(folder, monkeypatch, round_number=2)
    for path in (folder.rounds_path, folder.rewards_path):
        path.write_bytes(path.read_bytes()[:-40])

    run_rounds(folder)

    assert Trace.of(folder) == Trace.of(undisturbed)


@pytest.mark.parametrize("round_number", [0, 1])
def test_killed_before_the_first_checkpoints(
    round_number: int, new_run: NewRun, *, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run()
    kill_at_checkpoint(folder, monkeypatch, round_number=round_number)

    run_rounds(folder)

    assert Trace.of(folder) == Trace.of(undisturbed)


def test_killed_while_the_enclave_was_at_work(
    new_run: NewRun, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admission log already holds the round's envelopes: the nodes must send the same ones again."""
    folder = new_run()

    def cut(*_arguments: object, **_keywords: object) -> None:
        raise PowerCut

    monkeypatch.setattr(recorder.Recorder, "commit", cut)
    with pytest.raises(PowerCut):
        run_rounds(folder)
    monkeypatch.undo()
    admitted = json.loads((folder.enclave / "admitted.json").read_text())
    assert len(admitted) == 6

    grid = make_grid(folder)
    serve(grid, folder, num_supernodes=2)

    assert Trace.of(folder) == Trace.of(undisturbed)
    digests = {read_envelope(envelope).digest for envelope in envelopes_of(grid, 0)}
    assert digests == set(admitted.values())


def test_second_envelope_after_a_restart_is_a_duplicate(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that lost its memory trains again, and its second update is not admitted beside the first."""
    folder = new_run(**{"federation.num_rounds": 1})
    kill_at_checkpoint(folder, monkeypatch, round_number=1)
    (folder.node(5) / "sent.envelope").unlink()
    (folder.node(5) / "spending.json").unlink()

    run_rounds(folder)

    nodes = folder.rounds()[1].nodes
    assert nodes is not None
    assert nodes.refused == {"duplicate": 1}
    assert nodes.admitted == 5


def test_finished_run_only_gets_its_report_again(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all its final pool is not opened a second time."""
    folder = new_run(**{"federation.num_rounds": 1})
    run_rounds(folder)
    report = folder.root / "report.html"
    before = [path.read_bytes() for path in (folder.rounds_path, folder.rewards_path, folder.manifest_path)]
    report.unlink()
    grid = make_grid(folder)
    monkeypatch.setattr(Monitor, "final", interrupted)

    serve(grid, folder, num_supernodes=2)

    assert not grid.sent
    assert report.exists()
    assert before == [path.read_bytes() for path in (folder.rounds_path, folder.rewards_path, folder.manifest_path)]


def test_run_stopped_before_its_final_pool_opens_it_when_resumed(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    monkeypatch.setattr(NervStrategy, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_rounds(folder)
    assert "final" not in folder.read_manifest()
    monkeypatch.undo()

    run_rounds(folder)

    assert folder.read_manifest()["final"]["chains"] == 16


def interrupted(*_arguments: object, **_keywords: object) -> None:
    """Stand in for a method during which Ctrl-C is pressed."""
    raise KeyboardInterrupt


def kill_at_checkpoint(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *, round_number: int) -> FakeGrid:
    """Run a folder until the moment before a round's checkpoint; return the grid of that run."""

    def save_or_die(path: Path, state: FederationState) -> None:
        if state.round_number == round_number:
            raise PowerCut
        save_state(path, state)

    grid = make_grid(folder)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "save_state", save_or_die)
        with pytest.raises(PowerCut):
            serve(grid, folder, num_supernodes=2)
    return grid


def envelopes_of(grid: FakeGrid, first_reply: int) -> list[bytes]:
    """Return the envelopes of one round: two replies from `first_reply` on."""
    answers = [reply.content.config_records["answer"] for reply in grid.replies[first_reply:][:2]]
    return [envelope for answer in answers for envelope in answer["envelopes"]]  # type: ignore[union-attr,misc]


def nodes_asked(grid: FakeGrid, message: int) -> list[int]:
    """Return the cohort that a message named."""
    return list(grid.sent[message].content.config_records["round"]["cohort"])  # type: ignore[arg-type]


def spending(folder: RunFolder) -> dict[int, dict[str, int]]:
    """Return what each node wrote down: steps by run and round."""
    paths = {node: folder.node(node) / "spending.json" for node in range(8)}
    return {node: json.loads(path.read_text())["steps"] for node, path in paths.items() if path.exists()}
