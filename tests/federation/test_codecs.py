"""Whole rounds whose updates are rounded."""

from pathlib import Path

import numpy as np
import pytest

from nerv_fl.crypto import encode_update
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import open_folder, prepare
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import (
    Forger,
    Interference,
    Trace,
    copy_run,
    record_of,
    refused,
    rewards_of,
    run_rounds,
    tiny_config,
)


def test_a_rounded_run_learns_and_does_not_depend_on_how_it_is_executed(new_run: NewRun, tmp_path: Path) -> None:
    settings = {"training.codec": "int8", "federation.num_rounds": 2}
    spread = copy_run(tmp_path / "spread", **settings)
    whole = new_run(**settings)

    run_rounds(whole)
    run_rounds(spread, num_supernodes=3)

    assert Trace.of(whole) == Trace.of(spread)
    records = [record_of(whole, number) for number in (1, 2)]
    assert any(record.accepted for record in records)
    assert all(record.nodes is not None and record.nodes.admitted == 6 for record in records)


def test_rounding_changes_the_model_by_less_than_the_round_does(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run(**{"training.codec": "bf16", "federation.num_rounds": 1})

    run_rounds(folder)

    rounded, exact = record_of(folder, 1), record_of(undisturbed, 1)
    assert rounded.model_hash != exact.model_hash
    assert (rounded.accepted, rounded.step) == (exact.accepted, exact.step)
    assert rounded.loss == pytest.approx(exact.loss, rel=1e-4)


def test_another_codec_than_the_runs_is_refused_and_costs_its_node(new_run: NewRun) -> None:
    folder = new_run(**{"training.codec": "bf16", "federation.num_rounds": 1})

    def compress(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        payload = encode_update(forger.zeros(), codec="int8", rounding=np.random.default_rng(0))
        return {node: forger.seal_bytes(node, payload) if node == 5 else envelopes[node] for node in envelopes}

    state = run_rounds(folder, meddle=Interference(folder, 1, compress))

    assert refused(folder, 1) == {"bad-payload": 1}
    row = rewards_of(folder, 1)[5]
    assert (row.flag, row.payout_nano, row.value) == ("bad-payload", 0, None)
    assert state.reputations[5] == 0.3 * 0.5


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_cheats_are_found_in_rounded_updates(codec: str, tmp_path: Path) -> None:
    settings = {
        "training.codec": codec,
        "adversaries.sybil": 0.25,
        "adversaries.free_rider": 0.125,
        "adversaries.noise_skipper": 0.125,
        "adversaries.group_size": 2,
        "federation.cohort_size": 8,
        "federation.num_rounds": 1,
    }
    folder = copy_run(tmp_path / "run", **settings)
    prepare(open_folder(folder.root, tiny_config(settings), resume=True))

    run_rounds(RunFolder(folder.root))

    nodes = record_of(folder, 1).nodes
    assert nodes is not None
    assert (nodes.admitted, nodes.clones, nodes.flagged) == (8, 2, {"unnoised": 2})
