"""Whole rounds in which nodes are out of reach, fail and are late."""

import json
from collections.abc import Mapping

from nerv_fl.crypto import read_envelope
from nerv_fl.faults import FAILED, FATES, LATE, OFFLINE, nodes_by_fate
from nerv_fl.records import read_rewards
from nerv_fl.server.app import serve
from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.tiny_run import Forger, Interference, make_grid, record_of, refused, rewards_of, run_rounds

FAULTY = {
    "faults.offline": 0.12,
    "faults.failure": 0.12,
    "faults.deadline_s": 120.0,
    "federation.min_heard_fraction": 0.5,
    "federation.cohort_size": 8,
}
CHEATING = {"adversaries.replayer": 0.25, "adversaries.free_rider": 0.125}


def lost_of(folder: RunFolder, round_number: int) -> Mapping[str, frozenset[int]]:
    """Return who is lost in a round in which everybody is sampled."""
    return nodes_by_fate(folder.config, round_number, range(8))


def steps_of(folder: RunFolder, node: int) -> set[int]:
    """Return the rounds that a node has accounted for."""
    path = folder.node(node) / "spending.json"
    steps = json.loads(path.read_text())["steps"] if path.exists() else {}
    return {int(key.rpartition("/")[2]) for key in steps}


def test_records_say_who_was_lost_and_accountants_who_spent(new_run: NewRun) -> None:
    folder = new_run(**FAULTY)
    seen = dict.fromkeys(FATES, 0)

    state = run_rounds(folder)

    for number in (1, 2, 3):
        lost, record = lost_of(folder, number), record_of(folder, number)
        assert record.faults == {fate: len(nodes) for fate, nodes in lost.items()}
        assert record.nodes is not None
        missing = frozenset().union(*lost.values())
        assert (record.nodes.sampled, record.nodes.heard) == (8, 8 - len(missing))
        assert record.nodes.refused == {}
        if record.accepted:
            assert set(rewards_of(folder, number)) == set(range(8)) - missing
        assert {node for node in range(8) if number in steps_of(folder, node)} == set(range(8)) - lost[OFFLINE]
        for fate, nodes in lost.items():
            seen[fate] += len(nodes)
    assert all(seen.values()), f"{seen} of seed 7: the test would show nothing of the rest"
    assert state.participations == tuple(len(steps_of(folder, node)) for node in range(8))


def test_who_is_out_of_reach_is_not_asked(new_run: NewRun) -> None:
    folder = new_run(**FAULTY | {"faults.offline": 0.5, "federation.num_rounds": 1})
    grid = make_grid(folder)

    serve(grid, folder, num_supernodes=2)

    asked = [message.content.config_records["round"]["cohort"] for message in grid.sent]
    assert asked == [sorted(set(range(8)) - lost_of(folder, 1)[OFFLINE])] * 2


def test_what_was_late_is_stale_in_the_next_round(new_run: NewRun) -> None:
    folder = new_run(**FAULTY | {"federation.num_rounds": 2})
    late = lost_of(folder, 1)[LATE]
    handed_in: list[int] = []

    def add_the_late_ones(envelopes: dict[int, bytes], forger: Forger) -> list[bytes]:
        stale = [item for item in forger.earlier if read_envelope(item).header.context.node in late and not handed_in]
        handed_in.extend(read_envelope(item).header.context.node for item in stale)
        return [*stale, *envelopes.values()]

    run_rounds(folder, meddle=Interference(folder, 2, add_the_late_ones))

    assert set(handed_in) == late != set()
    assert refused(folder, 2) == {"wrong-context": len(late)}
    nodes = record_of(folder, 2).nodes
    assert nodes is not None
    assert nodes.heard == 8 - sum(len(lost) for lost in lost_of(folder, 2).values())


def test_too_many_lost_reject_the_round_and_its_pool_carries_over(new_run: NewRun) -> None:
    folder = new_run(**FAULTY | {"federation.min_heard_fraction": 1.0, "federation.num_rounds": 2})

    run_rounds(folder)

    first, second = record_of(folder, 1), record_of(folder, 2)
    assert first.nodes is not None
    assert first.reason == f"{first.nodes.heard} of 8 nodes were heard, expected at least 100 % of the cohort"
    assert (first.accepted, second.carried_nano) == (False, first.pool_nano)


def test_faults_do_not_depend_on_how_nodes_are_blocked(new_run: NewRun) -> None:
    whole, spread = (new_run(name, **FAULTY, **CHEATING) for name in ("whole", "spread"))

    run_rounds(whole, num_supernodes=1)
    run_rounds(spread, num_supernodes=10)

    assert leavings(spread) == leavings(whole)


def test_nobody_loses_reputation_for_being_lost(new_run: NewRun) -> None:
    folder = new_run(**FAULTY | {"federation.min_heard_fraction": 1.0, "federation.num_rounds": 1})

    state = run_rounds(folder)

    assert set(state.reputations) == {0.3}
    assert read_rewards(folder.rewards_path) == []


def test_the_report_shows_them(new_run: NewRun, undisturbed: RunFolder) -> None:
    folder = new_run(**FAULTY | {"federation.num_rounds": 1})
    run_rounds(folder)

    lost = lost_of(folder, 1)
    counts = ", ".join(f"{len(lost[fate])} {fate}" for fate in (OFFLINE, FAILED, LATE))
    page = (folder.root / "report.html").read_text()
    assert "Nodes lost, by round" in page
    assert counts in page
    assert "Nodes lost, by round" not in (undisturbed.root / "report.html").read_text()
