"""Whole rounds with adversaries among the nodes, and a gate that was switched off."""

import json
from pathlib import Path

import pytest

from nerv_fl.report import write_report
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import open_folder, prepare
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import Trace, copy_run, record_of, rewards_of, run_rounds, tiny_config

CHEATING = {
    "adversaries.sybil": 0.25,
    "adversaries.free_rider": 0.125,
    "adversaries.splitter": 0.25,
    "adversaries.group_size": 2,
    "federation.cohort_size": 8,
    "federation.num_rounds": 2,
}


def cheated(target: Path) -> RunFolder:
    """Return a prepared run of the tiny federation with five adversaries."""
    folder = copy_run(target, **CHEATING)
    prepare(open_folder(folder.root, tiny_config(CHEATING), resume=True))
    return RunFolder(folder.root)


def roles_of(folder: RunFolder) -> dict[int, str]:
    roster = json.loads((folder.root / "roster.json").read_text())
    return {int(node): item["role"] for node, item in roster.items() if "role" in item}


def test_clones_and_free_riders_earn_nothing_and_pay_with_their_reputation(tmp_path: Path) -> None:
    folder = cheated(tmp_path / "run")
    kinds = roles_of(folder)

    state = run_rounds(folder)

    rows, nodes = rewards_of(folder, 1), record_of(folder, 1).nodes
    flags = {kind: {rows[node].flag for node in kinds if kinds[node] == kind} for kind in set(kinds.values())}
    assert flags == {"sybil": {"clone"}, "free_rider": {"unnoised"}, "splitter": {""}}
    assert nodes is not None
    assert (nodes.admitted, nodes.clones, nodes.flagged) == (8, 2, {"unnoised": 1})
    assert all(rows[node].payout_nano == 0 for node in kinds if kinds[node] != "splitter")
    assert {rows[node].value is None for node in kinds if kinds[node] == "free_rider"} == {True}
    assert all(state.reputations[node] == 0.3 * 0.5**2 for node in kinds if kinds[node] != "splitter")


def test_splitters_have_one_nodes_weight_together(tmp_path: Path) -> None:
    folder = cheated(tmp_path / "run")
    kinds = roles_of(folder)

    weights = folder.read_weights()

    assert sum(weights[node] for node in kinds if kinds[node] == "splitter") == 128
    assert {weights[node] for node in range(8) if kinds.get(node) != "splitter"} == {128}


def test_a_cheated_run_does_not_depend_on_how_it_is_executed(tmp_path: Path) -> None:
    whole, spread = cheated(tmp_path / "whole"), cheated(tmp_path / "spread")
    run_rounds(whole)
    run_rounds(spread, num_supernodes=3)

    assert Trace.of(whole) == Trace.of(spread)


def test_the_report_says_what_each_kind_earned(tmp_path: Path) -> None:
    folder = cheated(tmp_path / "run")
    run_rounds(folder)

    page = write_report(folder.root).read_text()

    assert "Adversaries by kind" in page
    assert "free rider" in page
    assert "2 unnoised" in page


def test_an_honest_run_has_no_adversaries_in_its_report(undisturbed: RunFolder) -> None:
    assert "Adversaries by kind" not in (undisturbed.root / "report.html").read_text()


def test_without_the_gate_step_1_is_committed_and_not_certified(
    new_run: NewRun, caplog: pytest.LogCaptureFixture
) -> None:
    folder = new_run(**{"gate.enforce": False, "federation.num_rounds": 2})

    run_rounds(folder)

    assert "gate.enforce is false" in caplog.text
    assert "The gate is off in this run" in (folder.root / "report.html").read_text()

    records = [record_of(folder, number) for number in (1, 2)]
    assert [(record.accepted, record.step) for record in records] == [(True, 1.0)] * 2
    assert not list((folder.root / "certificates").glob("*"))
    assert all(record.gate is not None and record.gate.ungated is not None for record in records)


def test_what_step_1_would_have_done_is_on_record_for_rejected_rounds_too(new_run: NewRun) -> None:
    folder = new_run(**{"server.learning_rate": 0.0, "federation.num_rounds": 1})

    run_rounds(folder)

    record = record_of(folder, 1)
    assert not record.accepted
    assert record.gate is not None
    assert record.gate.ungated is not None
