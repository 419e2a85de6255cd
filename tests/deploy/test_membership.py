"""Nodes that join and leave between two rounds."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.config import as_table, build, flatten
from nerv_fl.deploy import membership as members
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.membership import add_node, remove_node
from nerv_fl.deploy.renew import renew
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.records import read_rewards
from nerv_fl.server.app import serve
from nerv_fl.server.checkpoint import load_state
from nerv_fl.server.roster import read_members
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.verify_rewards import verify_rewards
from tests.deploy.tiny import NUM_NODES, GridOfMachines, problems_of


def rounds_until(deployment: Deployment, last: int, *, machines: list[int]) -> RunFolder:
    """Run rounds with the machines that are there, then stop."""
    serve(
        GridOfMachines(deployment, numbers=machines),
        RunFolder(deployment.server.run),
        num_supernodes=len(machines),
        is_asked_to_stop=lambda folder: len(folder.rounds()) > last,
    )
    return RunFolder(deployment.server.run)


def paid(folder: RunFolder, round_number: int) -> list[int]:
    return [row.node for row in read_rewards(folder.rewards_path) if row.round == round_number]


def test_a_node_joins_and_another_leaves_and_the_run_goes_on(deployment: Deployment) -> None:
    before = rounds_until(deployment, 1, machines=[0, 1, 2]).rewards_path.read_text()

    held_by_1 = load_state(RunFolder(deployment.server.run).checkpoint).balances_nano[1]
    assert add_node(deployment) == 3
    remove_node(deployment, 1)
    assert problems_of(deployment.root) == []
    folder = rounds_until(deployment, 2, machines=[0, 2, 3])

    assert [paid(folder, number) for number in (1, 2)] == [[0, 1, 2], [0, 2, 3]]
    assert folder.rewards_path.read_text().startswith(before)
    state = load_state(folder.checkpoint)
    assert state.balances_nano[1] == held_by_1
    assert len(state.reputations) == 4
    assert state.participations == (2, 1, 2, 1)
    verify_rewards(folder)
    assert "final" in folder.read_manifest()


def test_whoever_left_is_neither_asked_nor_heard(deployment: Deployment) -> None:
    remove_node(deployment, 1)
    folder = rounds_until(deployment, 1, machines=[0, 1, 2])

    assert paid(folder, 1) == [0, 2]
    assert not (deployment.node(1).state / "00001" / "spending.json").exists()
    assert 1 not in folder.read_roster()
    assert 1 not in folder.read_weights()


def test_a_number_is_never_given_again(deployment: Deployment) -> None:
    remove_node(deployment, 2)
    assert add_node(deployment) == NUM_NODES

    members = read_members(RunFolder(deployment.server.run).roster_path)
    assert [number for number, member in members.items() if member.retired] == [2]
    assert sorted(members) == [0, 1, 2, 3]


def test_a_node_is_made_with_nothing_but_the_servers_folder(deployment: Deployment, tmp_path: Path) -> None:
    shutil.copytree(deployment.server.root, tmp_path / "alone" / "server")
    alone = Deployment(tmp_path / "alone")
    add_node(alone)

    machine = alone.node(3)
    assert problems_of(machine.root) == []
    assert {stat.S_IMODE(path.stat().st_mode) for path in (machine.root, machine.state)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in machine.root.rglob("*.key")} == {0o600}


def test_no_member_changes_while_the_server_is_at_work(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "PATIENCE_S", 0.2)
    before = {path: path.read_bytes() for path in deployment.server.root.rglob("*") if path.is_file()}
    with RunFolder(deployment.server.run).exclusive():
        for change in (add_node, lambda it: remove_node(it, 0)):
            with pytest.raises(CheckpointError, match=r" is being written by process \d+, "):
                change(deployment)

    lock = RunFolder(deployment.server.run).lock
    after = {path: path.read_bytes() for path in deployment.server.root.rglob("*") if path.is_file() and path != lock}
    assert after == before
    assert not deployment.node(3).root.exists()


def test_what_cannot_change_is_refused_and_nothing_is(deployment: Deployment) -> None:
    roster = RunFolder(deployment.server.run).roster_path
    before = roster.read_bytes(), RunFolder(deployment.server.run).config_path.read_bytes()
    with pytest.raises(ConfigError, match=r"^node is 7, expected one of \[0, 1, 2\], who take part$"):
        remove_node(deployment, 7)
    deployment.node(3).root.mkdir()
    (deployment.node(3).root / "something").touch()
    with pytest.raises(ConfigError, match=r"node-3 exists and node 3 is not on the roster, expected nothing there"):
        add_node(deployment)

    assert (roster.read_bytes(), RunFolder(deployment.server.run).config_path.read_bytes()) == before
    assert not deployment.server.supernode(3).exists()


def test_a_removal_that_was_cut_short_is_finished_by_another(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_config", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remove_node(deployment, 1)
    assert problems_of(deployment.root) != []
    remove_node(deployment, 1)

    assert problems_of(deployment.root) == []
    assert not deployment.server.supernode(1).exists()
    federation = RunFolder(deployment.server.run).config.federation
    assert (federation.num_nodes, federation.cohort_size) == (3, 2)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_addition_that_was_cut_short_is_done_anew(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_config", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add_node(deployment)
    deployment.server.supernode(3).with_suffix(".json").write_text('{"node-id": 9}')  # register.sh was called meanwhile
    shutil.rmtree(deployment.node(3).root)

    assert add_node(deployment) == 3
    assert problems_of(deployment.root) == []
    assert [path.name for path in deployment.server.supernode(3).parent.glob("node-3*")] == ["node-3.pub"]
    assert len(list(deployment.server.supernode(3).parent.glob("gone-*"))) == 1


def test_whoever_left_gets_no_new_key(deployment: Deployment) -> None:
    remove_node(deployment, 1)
    with pytest.raises(ConfigError, match=r"^node 1 takes part no more, expected one that is on the roster$"):
        renew(deployment, node=1)

    assert not deployment.server.supernode(1).exists()


def test_a_federation_keeps_as_many_as_a_round_needs(deployment: Deployment) -> None:
    remove_node(deployment, 0)
    before = RunFolder(deployment.server.run).read_roster()
    with pytest.raises(ConfigError, match=r"^federation\.min_updates is 2, expected"):
        remove_node(deployment, 1)

    assert RunFolder(deployment.server.run).read_roster() == before


def test_a_cohort_smaller_than_the_federation_stays_as_large(deployment: Deployment) -> None:
    folder = RunFolder(deployment.server.run)
    folder.write_config(build(flatten(as_table(folder.config)) | {"federation.cohort_size": 2}))
    add_node(deployment)

    federation = RunFolder(deployment.server.run).config.federation
    assert (federation.num_nodes, federation.cohort_size) == (4, 2)


def test_the_commands_say_what_they_did(deployment: Deployment) -> None:
    runner = CliRunner()
    added = runner.invoke(app, ["deploy", "add", str(deployment.root)], catch_exceptions=False)
    removed = runner.invoke(app, ["deploy", "remove", str(deployment.root), "--node", "0"], catch_exceptions=False)

    assert added.stdout == f"{deployment.node(3).root}\n"
    assert removed.stdout == "node 0 takes part no more\n"


FLWR = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
  *"unregister 78"*) echo "[code: 24] Node ID not found" >&2; exit 1 ;;
  *) echo '{{"node-id": 5}}' ;;
esac
"""


def test_register_unregisters_who_left(deployment: Deployment, tmp_path: Path) -> None:
    """With a stand-in for Flower's command, which writes down how it was called."""
    notes = deployment.server.supernode(0).parent
    (notes / "node-0.json").write_text('{"success": true, "node-id": 14314684388723844653}')
    (notes / "node-1.json").write_text('{\n  "success": true,\n  "node-id": "77"\n}')
    (notes / "gone-before").write_text('{"node-id": 78}')
    remove_node(deployment, 0)
    calls, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir()
    for name in ("flwr", "flower-superlink"):
        program = programs / name
        program.write_text(FLWR.format(calls=calls))
        program.chmod(0o700)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run([deployment.server.root / "register.sh"], env=environment, check=True, timeout=20)

    assert sorted(calls.read_text().splitlines()) == [
        "supernode register supernodes/node-2.pub deployment --format json",
        "supernode unregister 14314684388723844653 deployment",
        "supernode unregister 78 deployment",
    ]
    assert sorted(path.name for path in notes.iterdir()) == ["node-1.json", "node-1.pub", "node-2.json", "node-2.pub"]
