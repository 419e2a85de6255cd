"""SuperLink, SuperExec and three SuperNodes on loopback, started by their scripts: TLS, authenticated, and killed."""

import json
import time
from pathlib import Path

import pytest

from nerv_fl.records import read_rewards
from nerv_fl.server.audit import verify_rewards
from nerv_fl.server.checkpoint import last_round
from nerv_fl.strategy.certificate import verify_certificate
from nerv_fl.strategy.identity import read_vendor_root
from tests.deploy.machines import Machines, deploy, running
from tests.deploy.tiny import NUM_NODES
from tests.simulations.processes import wait_for

pytestmark = pytest.mark.slow


def check_whole(machines: Machines, *, rounds: int) -> None:
    """Each round counts once: in the records, the money, the certificates and every accountant."""
    folder = machines.run_folder
    records = folder.rounds()
    assert [record.round for record in records] == list(range(rounds + 1))
    assert last_round(folder.checkpoint) == rounds
    verify_rewards(folder)
    rows = [(row.round, row.node) for row in read_rewards(folder.rewards_path)]
    assert len(rows) == len(set(rows))
    root = read_vendor_root(machines.deployment.node(0).vendor_root)
    for record in records[1:]:
        if record.accepted:
            certificate = folder.certificate_path(record.round).read_bytes()
            assert verify_certificate(certificate, vendor_root=root).model_hash == record.model_hash
    run = str(folder.read_manifest()["run"])
    for number in range(NUM_NODES):
        steps = json.loads(machines.spent(number).read_text())["steps"]
        assert set(steps.values()) == {1}
        assert set(steps) <= {f"{run}/{record.round}" for record in records}


def spent_rounds(machines: Machines, number: int) -> list[int]:
    steps = json.loads(machines.spent(number).read_text())["steps"]
    return [int(key.rpartition("/")[2]) for key in steps]


def test_two_rounds_from_nothing(tmp_path: Path) -> None:
    with running(deploy(tmp_path / "deployment")) as machines:
        machines.start("run")
        machines.finish_run()
        records = machines.run_folder.rounds()
        check_whole(machines, rounds=2)

        assert [record.nodes.admitted for record in records[1:] if record.nodes] == [NUM_NODES] * 2
        assert any(record.accepted for record in records[1:])
        assert (machines.run_folder.root / "report.html").exists()
        assert [spent_rounds(machines, number) for number in range(NUM_NODES)] == [[1, 2]] * NUM_NODES


def test_what_is_killed_comes_back_and_nothing_counts_twice(tmp_path: Path) -> None:
    """A node in mid-round, the SuperLink, and the server's own process."""
    settings = {"federation.num_rounds": 5, "federation.round_timeout_s": 45.0, "federation.min_heard_fraction": 0.6}
    with running(deploy(tmp_path / "deployment", **settings)) as machines:
        machines.start("run")
        machines.wait_for_rounds(1)
        before = machines.run_folder.rewards_path.read_text()

        wait_for(lambda: 2 in spent_rounds(machines, 1))
        machines.kill("node-1")
        machines.start("node-1")
        machines.wait_for_rounds(2)

        machines.kill("superlink")
        machines.start("superlink")
        machines.finish_run()  # its stream ends; the run does not
        machines.wait_for_rounds(3)

        machines.kill_below("superexec", "flwr-serverapp")
        machines.start("run")
        machines.finish_run()
        check_whole(machines, rounds=5)

        assert machines.run_folder.rewards_path.read_text().startswith(before)
        assert [spent_rounds(machines, number) for number in (0, 2)] == [[1, 2, 3, 4, 5]] * 2
        returned = spent_rounds(machines, 1)  # it may miss a round until the SuperLink takes it back
        assert returned[:2] == [1, 2]
        assert returned[-1] == 5
        assert returned == sorted(set(returned))


def test_a_node_that_never_comes_is_named_and_not_waited_for_without_end(tmp_path: Path) -> None:
    settings = {"federation.num_rounds": 1, "federation.node_wait_s": 5.0, "federation.min_heard_fraction": 0.6}
    with running(deploy(tmp_path / "deployment", **settings)) as machines:
        machines.kill("node-2")
        time.sleep(60.0)  # until the SuperLink takes it for gone
        machines.start("run")
        said = machines.finish_run()

        assert (
            "2 of 3 SuperNodes are online, node-2 missing; rounds go on without the rest"
            in said + machines.log("superexec").read_text()
        )
        check_whole_without(machines, missing=2)


def check_whole_without(machines: Machines, *, missing: int) -> None:
    (_, record) = machines.run_folder.rounds()
    assert record.nodes is not None
    assert record.nodes.admitted == NUM_NODES - 1
    assert not machines.spent(missing).exists()
