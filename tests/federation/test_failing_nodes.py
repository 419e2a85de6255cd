"""Rounds in which nodes fail: each reason is told once, and a run in which nothing works is no success."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Message

from nerv_fl.client.app import build_client_app
from nerv_fl.client.local_training import Assignment, LocalTraining
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.server_app import load_folder
from nerv_fl.errors import ConfigError, NoUpdateError
from nerv_fl.server.app import serve
from nerv_fl.server.checkpoint import load_state
from nerv_fl.server.monitor import Monitor
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.server_state import FederationState
from simulations.engine import host_settings
from tests.deploy.test_apps import server_context
from tests.deploy.tiny import NUM_NODES, GridOfMachines, copy_deployment
from tests.federation.conftest import NewRun
from tests.federation.fake_grid import FakeGrid
from tests.federation.leavings import leavings
from tests.federation.tiny_run import COHORT_2, record_of, run_rounds

Raises = Callable[[Assignment], Exception | None]


def run_with(folder: RunFolder, raises: Raises) -> FederationState:
    """Run a folder's remaining rounds with nodes whose training raises what `raises` returns."""

    def training(work: Assignment) -> torch.Tensor:
        if (error := raises(work)) is not None:
            raise error
        return honest(work)

    settings = host_settings(folder)
    honest: LocalTraining = settings.training
    settings = replace(settings, training=training)
    grid = FakeGrid(build_client_app(lambda _context: settings), num_supernodes=2)
    return serve(grid, folder, num_supernodes=2, simulated=True)


def numbered(work: Assignment) -> Exception:
    """Return an error that names the node, as most do."""
    return ValueError(f"node {work.number} has no gradient at layer_2 of {work.folder}")


def spent_rounds(folder: RunFolder, node: int) -> int:
    path = folder.node(node) / "spending.json"
    return len(json.loads(path.read_text())["steps"]) if path.exists() else 0


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail that opens the final pool."""

    def refuse(*_: object) -> None:
        raise AssertionError("the final pool was opened")

    monkeypatch.setattr(Monitor, "final", refuse)


# --- One reason for all -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("closed")
def test_a_device_that_is_not_there_stops_the_run_before_anything_is_charged(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = new_run(**{"training.device": "cuda"})

    with pytest.raises(NoUpdateError) as caught:
        run_rounds(folder)

    assert str(caught.value).startswith("round 1: 6 of 6 nodes: training.device is 'cuda', expected 'cpu'")
    assert [record.round for record in folder.rounds()] == [0]
    assert set(load_state(folder.checkpoint).participations) == {0}
    assert {spent_rounds(folder, node) for node in range(8)} == {0}
    assert sum(record.exc_info is not None for record in caplog.records) <= 1
    page = (folder.root / "report.html").read_text()
    reason = "6 of 6 nodes: training.device is 'cuda'"
    assert 0 < page.find(reason) < page.index("Only the bootstrap is recorded")


@pytest.mark.usefixtures("closed")
def test_nodes_that_fail_after_they_have_spent_are_told_so(new_run: NewRun) -> None:
    folder = new_run()

    with pytest.raises(NoUpdateError) as caught:
        run_with(folder, numbered)

    assert " 6 of 6 nodes: ValueError: node " in str(caught.value)
    assert "; 6 of them have accounted for the round, which counts once when it is repeated" in str(caught.value)
    assert folder.read_manifest()["stopped"] == str(caught.value)
    assert "final" not in folder.read_manifest()


def test_a_run_goes_on_once_the_cause_is_mended_as_if_nothing_had_been(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run()
    with pytest.raises(NoUpdateError, match=r"^round 2: 6 of 6 nodes: "):
        run_with(folder, lambda work: numbered(work) if work.round_number == 2 else None)
    assert [record.round for record in folder.rounds()] == [0, 1]

    run_rounds(folder)

    assert leavings(folder) == leavings(undisturbed)
    assert folder.read_manifest()["stopped"] is None
    assert "The run stopped" not in (folder.root / "report.html").read_text()


def test_simulated_failures_of_all_nodes_reject_a_round_and_do_not_stop_the_run(new_run: NewRun) -> None:
    folder = new_run(**{"faults.failure": 1.0, "federation.num_rounds": 2})

    with pytest.raises(NoUpdateError, match=r"^no update was admitted in any of 2 rounds \(0 of 6 nodes were heard"):
        run_rounds(folder)

    assert [record.reason for record in folder.rounds()[1:]] == [
        "0 of 6 nodes were heard, expected at least 70 % of the cohort"
    ] * 2
    assert folder.rounds()[2].failures is None


def test_a_budget_that_allows_no_round_stops_the_run(new_run: NewRun) -> None:
    folder = new_run(**{"privacy.max_epsilon": 0.1})

    with pytest.raises(NoUpdateError, match=r"^round 1: 6 of 6 nodes: epsilon after round 1 would be "):
        run_rounds(folder)


def test_budgets_that_end_after_rounds_of_training_do_not_stop_the_run(new_run: NewRun) -> None:
    """The model that was trained until then is a result, and no resume could mend it."""
    folder = new_run(**{"privacy.max_epsilon": 10.0, "federation.cohort_size": 8})

    state = run_rounds(folder)

    assert [record.accepted for record in folder.rounds()[1:]] == [True, False, False]
    ((reason, count),) = (record_of(folder, 3).failures or {}).items()
    assert reason.startswith("epsilon after round 3 would be ")
    assert count == 8
    assert set(state.participations) == {1}
    assert folder.read_manifest()["final"]["chains"] == 16


# --- Several reasons --------------------------------------------------------------------------------------------------


def two_reasons(work: Assignment) -> Exception | None:
    """Fail nodes below 2 for one reason and those below 4 for another, in every round."""
    if work.number < 2:
        return numbered(work)
    return ConfigError(f"node {work.number} has another recipe") if work.number < 4 else None


def test_each_reason_is_counted_in_the_record_and_told_once_in_a_run(
    new_run: NewRun, caplog: pytest.LogCaptureFixture
) -> None:
    folder = new_run(**{"federation.min_heard_fraction": 0.3, "federation.cohort_size": 8})

    run_with(folder, two_reasons)

    for record in folder.rounds()[1:]:
        first, second = record.failures or {}
        assert first.startswith("ValueError: node 0 has no gradient at layer_2 of ")
        assert second == "node 2 has another recipe"
        assert list((record.failures or {}).values()) == [2, 2]
    told = [message for message in caplog.messages if message.startswith("round 1: 2 of 8 nodes: ")]
    assert len(told) == 2
    assert not [message for message in caplog.messages if message.startswith(("round 2: 2 of 8", "round 3: 2 of 8"))]
    assert sum(bool(record.exc_info) for record in caplog.records) <= 2
    page = (folder.root / "report.html").read_text()
    assert page.count("node 2 has another recipe") >= 1
    assert "Failures, by reason" in page


def test_the_servers_epsilon_counts_exactly_the_nodes_that_have_spent(new_run: NewRun) -> None:
    """Node 0 fails after it has spent, node 1 before; each in every round, and neither ever answers."""
    folder = new_run(**{"federation.min_heard_fraction": 0.5, "federation.cohort_size": 8})
    (folder.node(1) / "signing.key").write_text("damaged")
    (folder.node(1) / "spending.json").write_text("[]")

    state = run_with(folder, lambda work: numbered(work) if work.number == 0 else None)

    assert state.participations == (3, 0, 3, 3, 3, 3, 3, 3)
    assert [spent_rounds(folder, node) for node in (0, 2, 7)] == [3, 3, 3]


# --- Nothing learned --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("closed")
def test_the_final_pool_stays_closed_if_no_round_was_accepted(new_run: NewRun) -> None:
    """Updates came, too few in each round: the run is over, and its model is the one it began with."""
    folder = new_run(**{"federation.num_rounds": 2})

    run_with(folder, lambda work: numbered(work) if work.number in COHORT_2[:5] else None)

    closed = "none of 2 rounds was accepted, so the model is the one that the run began with"
    assert folder.read_manifest()["final_closed"] == closed
    assert "final" not in folder.read_manifest()
    page = (folder.root / "report.html").read_text()
    assert f"The final pool was not opened: {closed}." in page
    assert "ended: none of 2 rounds accepted" in page
    assert "chip good" not in page.partition("</header>")[0]


def test_a_run_that_ended_without_an_accepted_round_ends_again_the_same(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    raises = lambda work: numbered(work) if work.number % 2 else None  # noqa: E731
    run_with(folder, raises)
    manifest, records = folder.read_manifest(), folder.rounds()

    run_with(folder, raises)

    assert (folder.read_manifest(), folder.rounds()) == (manifest, records)


# --- A deployment -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("closed")
def test_a_deployment_without_updates_is_no_success_and_its_reasons_stay_with_the_nodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment: Deployment = copy_deployment(tmp_path / "deployment")
    for number in range(NUM_NODES):
        deployment.node(number).code_hash.write_text("5ec2e7" + "0" * 58)
    folder, grid = load_folder(server_context(str(deployment.server.run))), GridOfMachines(deployment)

    with pytest.raises(NoUpdateError, match=r"; the log of each node holds its own reason\. The model is the one"):
        serve(grid, folder, num_supernodes=NUM_NODES)

    assert [record.accepted for record in folder.rounds()[1:]] == [False, False]
    assert [record.failures for record in folder.rounds()] == [None] * 3
    assert load_state(folder.checkpoint).participations == (2, 2, 2)
    assert not [reply for reply in grid.replies if "5ec2e7" in words_of(reply)]
    assert "5ec2e7" in caplog.text
    assert "5ec2e7" not in folder.rounds_path.read_text() + (folder.root / "report.html").read_text()


def words_of(reply: Message) -> str:
    """Return all that a reply says, but for its envelopes."""
    return str(reply.error) if reply.has_error() else str(dict(reply.content.config_records["answer"]))
