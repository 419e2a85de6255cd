"""SuperLink, SuperExec and three SuperNodes on loopback, started by their scripts: TLS, authenticated, and killed."""

import json
import shutil
import time
from pathlib import Path

import pytest

from nerv_fl.config import Flat
from nerv_fl.deploy.certificates import make_supernode_key
from nerv_fl.deploy.layout import SERVER_ENV, NodeMachine, read_env
from nerv_fl.deploy.membership import add_node, remove_node
from nerv_fl.deploy.renew import renew
from nerv_fl.enclave.certificate import verify_certificate
from nerv_fl.enclave.identity import read_vendor_root
from nerv_fl.records import read_rewards
from nerv_fl.server.checkpoint import last_round
from nerv_fl.server.verify_rewards import verify_rewards
from tests.deploy.cable import Cable
from tests.deploy.machines import Machines, change_env, deploy, running
from tests.deploy.tiny import NUM_NODES
from tests.simulations.processes import free_port, wait_for


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
    for number in folder.read_roster():
        steps = json.loads(machines.spent(number).read_text())["steps"]
        assert set(steps.values()) == {1}
        assert set(steps) <= {f"{run}/{record.round}" for record in records}


def spent_rounds(machines: Machines, number: int) -> list[int]:
    path = machines.spent(number)
    steps = json.loads(path.read_text())["steps"] if path.exists() else {}
    return [int(key.rpartition("/")[2]) for key in steps]


def test_two_rounds_from_nothing(tmp_path: Path) -> None:
    """The enclave in a process of its own; and a SuperNode whose key nobody registered stays outside.

    Not among the slow ones: every change is tried on a federation as it is deployed.
    """
    with running(deploy(tmp_path / "deployment", {"enclave.place": "process"})) as machines:
        stranger = copy_of_node(machines, 0, named="node-9")
        machines.start("node-9")
        machines.start("run")
        machines.finish_run()
        records = machines.run_folder.rounds()
        check_whole(machines, rounds=2)

        assert [record.nodes.admitted for record in records[1:] if record.nodes] == [NUM_NODES] * 2
        assert any(record.accepted for record in records[1:])
        assert (machines.run_folder.root / "report.html").exists()
        assert [spent_rounds(machines, number) for number in range(NUM_NODES)] == [[1, 2]] * NUM_NODES
        assert sorted(path.name for path in machines.run_folder.enclave.iterdir()) == [
            "admitted.json",
            "evidence.json",
            "identity.sealed",
            "vendor-root.pub",
        ]
        machines.wait_for_log("node-9", "the SuperNode waits and tries again: this SuperNode's key is not registered")
        assert not (stranger / "state" / "00000" / "spending.json").exists()


def copy_of_node(machines: Machines, number: int, *, named: str) -> Path:
    """Make a machine that has all of a node's but the key by which its SuperNode is known."""
    copied = NodeMachine(machines.deployment.root / named)
    shutil.copytree(machines.deployment.node(number).root, copied.root)
    make_supernode_key(copied.key, copied.public_key)
    change_env(copied.env, RUNTIME_PORT=free_port())
    return copied.root


@pytest.mark.slow
def test_a_node_runs_no_other_app_than_its_own(tmp_path: Path) -> None:
    """A server that sends code of its own gets no answer, and the code is not run."""
    settings: Flat = {"federation.num_rounds": 1}
    proof = tmp_path / "it ran"
    with running(deploy(tmp_path / "deployment", settings)) as machines:
        code = machines.deployment.server.root / "app" / "nerv_node.py"
        code.write_text(f"{code.read_text()}\nfrom pathlib import Path\nPath({str(proof)!r}).touch()\n")
        machines.start("run")
        machines.finish_run()
        (_, record) = machines.run_folder.rounds()

        assert not record.accepted
        assert record.reason.startswith("0 of 3 nodes were heard")
        assert not proof.exists()
        for number in range(NUM_NODES):
            assert "the server sent another app than nerv_fl's" in machines.log(f"node-{number}").read_text()
            assert not machines.spent(number).exists()


@pytest.mark.slow
def test_what_is_killed_or_cut_off_comes_back_and_nothing_counts_twice(tmp_path: Path) -> None:
    """In turn: a node in mid-round, the SuperLink, one node's network, and the server's own process."""
    settings: Flat = {
        "federation.num_rounds": 7,
        "federation.round_timeout_s": 45.0,
        "federation.min_heard_fraction": 0.6,
    }
    deployment = deploy(tmp_path / "deployment", settings)
    port = int(read_env(deployment.server.env, names=SERVER_ENV)["PORT"])
    with Cable(port=free_port(), target=port) as cable, running(deployment, cables={1: cable}) as machines:
        machines.start("run")
        machines.wait_for_rounds(1)
        before = machines.run_folder.rewards_path.read_text()

        wait_for(lambda: 2 in spent_rounds(machines, 1))
        machines.restart("node-1")
        machines.wait_for_rounds(2)

        machines.restart("superlink")
        machines.wait_for_log("run", "the log stream has ended, the server has not")
        machines.wait_for_rounds(3)

        wait_for(lambda: spent_rounds(machines, 1)[-1] > 2)  # it is back
        taken = spent_rounds(machines, 1)[-1]
        cable.cut()
        machines.wait_for_rounds(taken)
        cable.heal()
        machines.wait_for_rounds(6)

        machines.kill_below("superexec", "flwr-serverapp")
        said = machines.finish_run()  # it starts the server again
        assert "before it was finished: starts again in 5 s" in said
        assert "the run is finished: 7 rounds" in said
        check_whole(machines, rounds=7)

        assert machines.run_folder.rewards_path.read_text().startswith(before)
        assert [spent_rounds(machines, number) for number in (0, 2)] == [list(range(1, 8))] * 2
        returned = spent_rounds(machines, 1)  # it may miss rounds until the SuperLink takes it back
        assert (returned[:2], returned[-1]) == ([1, 2], 7)
        assert returned == sorted(set(returned))


@pytest.mark.slow
def test_a_node_joins_another_leaves_and_a_third_has_a_new_key(tmp_path: Path) -> None:
    """After `stop.sh`, as the guide says, and the run goes on."""
    with running(deploy(tmp_path / "deployment", {"federation.num_rounds": 3})) as machines:
        machines.start("run")
        machines.wait_for_rounds(1)
        machines.call("stop")
        machines.finish_run()
        done = len(machines.run_folder.rounds()) - 1
        before = machines.run_folder.rewards_path.read_text()

        deployment = machines.deployment
        remove_node(deployment, 0)
        assert add_node(deployment) == 3
        change_env(deployment.node(3).env, RUNTIME_PORT=free_port())
        renew(deployment, node=2)
        machines.call("register")
        machines.kill("node-0")
        machines.restart("node-2")
        machines.start("node-3")
        machines.wait_for_log("node-3", "SuperNode ID")
        machines.wait_for_log("node-2", "SuperNode ID", times=2)
        machines.start("run")
        machines.finish_run()

        check_whole(machines, rounds=3)
        assert machines.run_folder.rewards_path.read_text().startswith(before)
        last = [row.node for row in read_rewards(machines.run_folder.rewards_path) if row.round == 3]
        assert last == [1, 2, 3]
        first, rest = list(range(1, done + 1)), list(range(done + 1, 4))
        assert [spent_rounds(machines, number) for number in range(4)] == [first, first + rest, first + rest, rest]


@pytest.mark.slow
def test_a_node_that_never_comes_is_named_and_not_waited_for_without_end(tmp_path: Path) -> None:
    settings: Flat = {"federation.num_rounds": 1, "federation.node_wait_s": 5.0, "federation.min_heard_fraction": 0.6}
    with running(deploy(tmp_path / "deployment", settings)) as machines:
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
