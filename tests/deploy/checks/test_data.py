"""Data files: overwritten bytes, another node's file, and data that two machines share."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.deploy.layout import Deployment, NodeMachine, read_record, write_record
from nerv_fl.deploy.provision_node import make_node
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.checks.faults import Break, require_found
from tests.deploy.tiny import deployment_config, problems_of


def change(path: Path, name: str, edit: Callable[[np.ndarray], None]) -> None:
    """Change a dataset, as a program that does not know of hashes would."""
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        edit(values)
        file[name][:] = values


def overwrite(path: Path, offset: int, length: int = 64) -> None:
    """Overwrite bytes, as a disk or a wrong copy would."""
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = bytes(byte ^ 0xFF for byte in content[offset : offset + length])
    path.write_bytes(content)


def raise_a_balance(values: np.ndarray) -> None:
    values[5, 1, 3] += 1


def swap_two_accounts(values: np.ndarray) -> None:
    values[17, 2, [0, 1]] = values[17, 2, [1, 0]] + 7


def change_a_hash(values: np.ndarray) -> None:
    values[3, 0] ^= 1


@pytest.mark.parametrize(
    ("name", "edit", "chain"),
    [
        ("balances", raise_a_balance, 5),
        ("balances", swap_two_accounts, 17),
        ("tx/amount_nano", lambda values: values.__setitem__(0, values[0] + 1), 0),
        ("chain/shard_kind", lambda values: values.__setitem__(31, (values[31] + 1) % 4), 31),
        ("chain/sha256", change_a_hash, 3),
    ],
)
def test_overwritten_values_are_found_on_the_nodes_machine(
    deployment: Deployment, name: str, edit: Callable[[np.ndarray], None], chain: int
) -> None:
    change(deployment.node(1).data, name, edit)
    require_found(
        deployment.node(1).root,
        rf"node-1/data\.h5: chain {chain} has values of SHA-256 [0-9a-f]{{12}}, expected [0-9a-f]{{12}}, which was "
        r"recorded when the file was written; restore the file from a backup",
    )


@pytest.mark.slow
def test_overwritten_bytes_are_found_wherever_they_are(deployment: Deployment) -> None:
    """HDF5 leaves gaps in a file; what a reader gets from the file is then what it was."""
    path = deployment.node(1).data
    original = path.read_bytes()
    unchanged = 0
    for offset in range(0, len(original), len(original) // 24):
        path.write_bytes(original)
        overwrite(path, offset)
        found = problems_of(deployment.node(1).root)
        unchanged += found == []
        assert all("node-1/data.h5" in line for line in found), found
    assert unchanged <= 2


@pytest.mark.parametrize("pool", ["search", "certify", "final"])
def test_overwritten_values_of_a_held_out_pool_are_found_on_the_server(deployment: Deployment, pool: str) -> None:
    change(RunFolder(deployment.server.run).data(pool), "balances", raise_a_balance)
    require_found(deployment.server.root, rf"run/data/{pool}\.h5: chain 5 has values of SHA-256 ")


@pytest.mark.parametrize("keep", [0, 100, 9999])
def test_a_data_file_that_was_cut_short_is_found(deployment: Deployment, keep: int) -> None:
    path = deployment.node(1).data
    path.write_bytes(path.read_bytes()[:keep])
    require_found(deployment.node(1).root, r"node-1/data\.h5 is not a readable HDF5 file")


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 1), (1, 0)])
def test_another_nodes_data_is_found(deployment: Deployment, source: int, target: int) -> None:
    shutil.copy(deployment.node(source).data, deployment.node(target).data)
    not_own = (
        rf"node-{target}/data\.h5 has content of SHA-256 [0-9a-f]{{12}}, expected [0-9a-f]{{12}}, this node's, as "
        rf"recorded in .*node-{target}/record\.json; put this node's own file back; if it was replaced on purpose, "
        rf"call `nerv-fl deploy record-data .*node-{target}`$"
    )
    low, high = sorted((source, target))
    require_found(deployment.node(target).root, not_own)
    require_found(
        deployment.root, not_own, rf"node-{high}/data\.h5 holds 32 of 32 chains that .*node-{low}/data\.h5 holds too"
    )


def test_a_pool_in_place_of_another_is_found(deployment: Deployment) -> None:
    run = RunFolder(deployment.server.run)
    shutil.copy(run.data("genesis"), run.data("certify"))
    require_found(
        deployment.server.root,
        r"run/data/certify\.h5 holds 80 chains of 4 steps, expected 64 of 4, as the settings say",
        r"run/data/certify\.h5 has content of SHA-256 .*, which the run began with, as recorded in .*manifest\.json",
    )


def test_data_that_were_replaced_on_purpose_are_recorded(deployment: Deployment, tmp_path: Path) -> None:
    machine, spare = deployment.node(1), NodeMachine(tmp_path / "spare")
    make_node(spare, 1, server=deployment.server, address="localhost:19099", config=deployment_config())
    shutil.copy(spare.data, machine.data)
    assert len(problems_of(machine.root)) == 1
    recorded = CliRunner().invoke(app, ["deploy", "record-data", str(machine.root)], catch_exceptions=False)

    assert re.fullmatch(rf"{machine.data}: SHA-256 {read_record(machine.record).data_sha256}\n", recorded.stdout)
    assert problems_of(machine.root) == []
    assert problems_of(deployment.root) == []


def forget(deployment: Deployment) -> None:
    deployment.node(1).record.unlink()


def forget_all(deployment: Deployment) -> None:
    deployment.node(1).record.unlink()
    deployment.node(1).signing_public_key(1).unlink()


@pytest.mark.parametrize(
    ("change", "missing"), [(forget, ["number, data and versions"]), (forget_all, ["number", "public signing key"])]
)
def test_a_folder_of_an_older_version_says_that_nothing_was_recorded(
    deployment: Deployment, change: Break, missing: list[str]
) -> None:
    change(deployment)
    wanted = [rf"^warning: .* has no {what}.*: not recorded, made by an older version of nerv_fl" for what in missing]
    require_found(deployment.node(1).root, *wanted)
    require_found(deployment.root, *wanted)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"node": 1}', '{"node": "x", "data_sha256": "", "versions": {}}'])
def test_a_damaged_record_is_a_finding(deployment: Deployment, text: str) -> None:
    deployment.node(1).record.write_text(text)
    require_found(
        deployment.node(1).root, r"node-1/record\.json cannot be read \(.*\), expected node, data_sha256 and versions"
    )


def test_the_folder_of_another_node_is_found_by_its_record(deployment: Deployment) -> None:
    record = read_record(deployment.node(1).record)
    write_record(deployment.node(1).record, type(record)(node=2, data_sha256=record.data_sha256, versions={}))
    require_found(deployment.node(1).root, r"machine\.env: NODE is '1', expected '2', as recorded in .*record\.json")
