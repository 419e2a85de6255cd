"""The folder that a deployment is started from."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from nerv_fl.config import read_recipe
from nerv_fl.crypto import SigningKey
from nerv_fl.data import LedgerFile
from nerv_fl.deploy.certificates import names_of, read_certificate, require_issued_by
from nerv_fl.deploy.layout import Deployment
from nerv_fl.deploy.provision import initialise
from nerv_fl.errors import ConfigError
from nerv_fl.server.run_folder import POOLS, RunFolder
from tests.deploy.tiny import NUM_NODES, deployment_config


def digests(path: Path) -> set[bytes]:
    with LedgerFile(path) as ledger:
        return {row.tobytes() for row in ledger.chain_digests()}


def test_private_files_are_the_owners_alone_and_so_is_every_machines_folder(deployment: Deployment) -> None:
    private = [path for path in deployment.root.rglob("*") if path.name.endswith((".key", ".secret"))]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [*private, deployment.node(0).data]}

    # ca, server, two of the enclave, the SuperExec's secret, and two of each node
    assert len(private) == 5 + 2 * NUM_NODES
    assert set(modes.values()) == {0o600}
    folders = [deployment.root, *(path for path in deployment.root.iterdir() if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_machine_holds_its_own_shard_and_nobody_elses(deployment: Deployment) -> None:
    shards = [digests(deployment.node(number).data) for number in range(NUM_NODES)]
    pools = [digests(RunFolder(deployment.server.run).data(pool)) for pool in POOLS]

    assert [len(shard) for shard in shards] == [32] * NUM_NODES
    assert len(set.union(*shards, *pools)) == sum(map(len, shards)) + sum(map(len, pools))
    for number in range(NUM_NODES):
        machine = deployment.node(number).root
        assert sorted(path.name for path in machine.rglob("*.h5")) == ["data.h5"]
        assert sorted(path.name for path in machine.rglob("*.key")) == ["signing.key", "supernode.key"]
    assert not list(deployment.server.root.rglob("nodes*"))


def test_data_cannot_be_drawn_again_from_what_machines_share(deployment: Deployment) -> None:
    seeds = set()
    for path in [deployment.node(0).data, deployment.node(1).data, RunFolder(deployment.server.run).data("certify")]:
        with LedgerFile(path) as ledger:
            seeds.add(ledger.info.seed)
    config = read_recipe(deployment.node(0).config)

    assert len(seeds) == 3
    assert str(config.seed) not in map(str, seeds)
    assert not any(str(seed) in deployment.node(2).config.read_text() for seed in seeds)


def test_the_certificate_is_of_the_authority_and_for_the_host_and_loopback(deployment: Deployment) -> None:
    certificate = read_certificate(deployment.server.certificate)

    require_issued_by(certificate, read_certificate(deployment.ca_certificate), path=deployment.server.certificate)
    assert names_of(certificate) == ["localhost", "127.0.0.1"]


def test_the_roster_lists_the_keys_that_nodes_sign_with(deployment: Deployment) -> None:
    roster = RunFolder(deployment.server.run).read_roster()

    for number in range(NUM_NODES):
        key = SigningKey.load_private(deployment.node(number).signing_key(number))
        assert roster[number] == key.verify_key
    assert len(roster) == NUM_NODES


def test_the_server_waits_for_a_supernode_a_node(deployment: Deployment) -> None:
    assert RunFolder(deployment.server.run).config.simulation.blocks == NUM_NODES


@pytest.mark.parametrize("script", ["superlink", "superexec", "register", "run", "supernode"])
def test_scripts_say_what_is_missing_where_flower_is_not(deployment: Deployment, script: str) -> None:
    folder = deployment.node(0).root if script == "supernode" else deployment.server.root
    environment = {"PATH": os.defpath}
    shown = subprocess.run(
        [folder / f"{script}.sh"], env=environment, capture_output=True, text=True, timeout=20, check=False
    )

    assert shown.returncode == 1
    assert "is not on PATH, expected nerv_fl's environment" in shown.stderr


def test_an_existing_folder_is_refused(deployment: Deployment) -> None:
    before = sorted(deployment.root.rglob("*"))
    with pytest.raises(ConfigError, match=r"deployment, which holds 5 files, expected a new or empty folder$"):
        initialise(deployment.root, deployment_config(), host="localhost")

    assert sorted(deployment.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"faults.offline": 0.5}, "faults are set, expected none in a deployment: its nodes refuse them"),
        ({"adversaries.sybil": 0.5}, "adversaries are set, expected none in a deployment: its nodes refuse them"),
        (
            {"privacy.protocol": False, "privacy.sigma": 0.7},
            "privacy.protocol is False, expected True outside a simulation: the protocol fixes sigma 0.5 and clip 1.0",
        ),
        (
            {"data.partition": "dirichlet"},
            "data.partition is 'dirichlet', expected 'chain' in a deployment: a node holds its own data",
        ),
    ],
)
def test_what_only_a_simulation_can_do_is_refused(tmp_path: Path, setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        initialise(tmp_path / "new", deployment_config(**setting), host="localhost")

    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["", "two words", 'quo"te', "$(reboot)", "a:b c"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"^host is .*, expected a name or an IPv4 address$"):
        initialise(tmp_path / "new", deployment_config(), host=host)
