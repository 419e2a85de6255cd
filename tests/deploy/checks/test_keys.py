"""A private key that does not belong to the public one that others know is found, on the machine that has it."""

import itertools
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from nerv_fl.crypto import SigningKey
from nerv_fl.deploy import certificates
from nerv_fl.deploy.layout import Deployment
from nerv_fl.server.roster import read_members, write_members
from nerv_fl.server.run_folder import RunFolder
from tests.deploy.checks.faults import require_found
from tests.deploy.tiny import made_root, problems_of

NODE_KEYS = (
    "supernode.key",
    "supernode.pub",
    "state/00001/signing.key",
    "state/00001/signing.pub",
    "vendor-root.pub",
    "ca.crt",
)
SERVER_KEYS = (
    "tls/ca.crt",
    "tls/server.crt",
    "tls/server.key",
    "run/enclave/opening.key",
    "run/enclave/signing.key",
    "run/enclave/vendor-root.pub",
    "run/enclave/evidence.json",
    "supernodes/node-0.pub",
)


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(NODE_KEYS, 2)))
def test_keys_swapped_on_a_nodes_machine_are_found(deployment: Deployment, first: str, second: str) -> None:
    root = deployment.node(1).root
    swap(root / first, root / second)
    found = problems_of(root)
    assert any(first in line or second in line for line in found), found
    assert not any("failed (" in line for line in found), found


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SERVER_KEYS, 2)))
def test_keys_swapped_on_the_servers_machine_are_found(deployment: Deployment, first: str, second: str) -> None:
    root = deployment.server.root
    swap(root / first, root / second)
    found = problems_of(root)
    assert any(first in line or second in line for line in found), found
    assert not any("failed (" in line for line in found), found


def test_another_signing_key_of_the_enclave_is_found(deployment: Deployment) -> None:
    SigningKey.generate().save_private(deployment.server.run / "enclave" / "signing.key")
    require_found(
        deployment.server.root,
        r"enclave/signing\.key holds the signing key [0-9a-f]{16}, expected [0-9a-f]{16}, which evidence\.json names; "
        r"restore it from a backup",
    )


def test_another_signing_key_of_a_node_is_found_on_its_machine(deployment: Deployment) -> None:
    SigningKey.generate().save_private(deployment.node(1).signing_key(1))
    require_found(
        deployment.node(1).root,
        r"signing\.key has the public key [0-9a-f]{16}, expected [0-9a-f]{16}, which .*signing\.pub holds; restore the "
        r"folder state/ of this node",
    )


def test_the_state_of_another_node_is_found_on_its_machine(deployment: Deployment) -> None:
    """Copied with the name that this node's has: only the roster tells."""
    shutil.rmtree(deployment.node(1).own_folder(1))
    shutil.copytree(deployment.node(2).own_folder(2), deployment.node(1).own_folder(1))
    require_found(
        deployment.root, r"node-1/.*signing\.key has the public key .*, node 1's in .*roster\.json; restore the"
    )


def test_another_supernode_key_is_found_on_its_machine(deployment: Deployment) -> None:
    certificates.make_supernode_key(deployment.node(1).key, deployment.root / "elsewhere.pub")
    require_found(
        deployment.node(1).root, r"supernode\.key is 'ecdsa.*, expected 'ecdsa.* as in .*supernode\.pub; .*renew"
    )


def test_a_whole_pair_of_another_node_is_found_in_the_operators_folder(deployment: Deployment) -> None:
    for name in ("supernode.key", "supernode.pub"):
        swap(deployment.node(1).root / name, deployment.node(2).root / name)
    require_found(
        deployment.root,
        r"node-1/supernode\.pub is 'ecdsa.*, expected 'ecdsa.* as in .*supernodes/node-1\.pub",
        r"node-2/supernode\.pub is 'ecdsa.*, expected 'ecdsa.* as in .*supernodes/node-2\.pub",
    )


def test_two_nodes_with_one_key_are_found_on_the_server(deployment: Deployment) -> None:
    shutil.copy(deployment.server.supernode(0), deployment.server.supernode(2))
    path = RunFolder(deployment.server.run).roster_path
    members = read_members(path)
    write_members(path, members | {1: members[0]})
    require_found(
        deployment.server.root,
        r"roster\.json: key of node 1 is that of node 0 too, expected another",
        r"supernodes/node-2\.pub is the key of .*supernodes/node-0\.pub too, expected another",
    )


# --- What the SuperLink has registered --------------------------------------------------------------------------------


def register(deployment: Deployment, *, keys: dict[int, str], status: str = "registered") -> None:
    """Write what `register.sh` leaves: a note for each node, and the SuperLink's table (flwr 1.41)."""
    with closing(sqlite3.connect(deployment.server.database)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS node (node_id INTEGER, status VARCHAR, public_key BLOB)")
        for number, text in keys.items():
            pem = load_ssh_public_key(text.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            connection.execute("INSERT INTO node VALUES (?, ?, ?)", (number, status, pem))
            note = deployment.server.supernode(number).with_suffix(".json")
            note.write_text(json.dumps({"node-id": str(number)}))
        connection.commit()
    deployment.server.database.chmod(0o600)


def keys_of(deployment: Deployment) -> dict[int, str]:
    return {number: deployment.server.supernode(number).read_text() for number in range(3)}


def test_registered_supernodes_are_found_to_be_right(deployment: Deployment) -> None:
    register(deployment, keys=keys_of(deployment))
    before = {path: path.read_bytes() for path in deployment.server.root.rglob("*") if path.is_file()}
    assert problems_of(deployment.server.root) == []
    assert {path: path.read_bytes() for path in deployment.server.root.rglob("*") if path.is_file()} == before


def test_a_key_that_is_not_the_registered_one_is_found(deployment: Deployment) -> None:
    register(deployment, keys=keys_of(deployment))
    certificates.make_supernode_key(deployment.root / "elsewhere.key", deployment.server.supernode(1))
    require_found(
        deployment.server.root,
        r"supernodes/node-1\.pub is not among the keys that the SuperLink has registered, expected one of the 3 in "
        r".*state\.db; delete .*supernodes/node-1\.json and call register\.sh",
    )


def test_a_key_that_is_not_registered_yet_is_a_warning(deployment: Deployment) -> None:
    keys = keys_of(deployment)
    register(deployment, keys={number: keys[number] for number in (0, 2)})
    require_found(deployment.server.root, r"^warning: .*node-1\.pub is not among .* the 2 in .*; call register\.sh$")


def test_a_key_that_was_unregistered_is_found(deployment: Deployment) -> None:
    keys = keys_of(deployment)
    register(deployment, keys={number: keys[number] for number in (0, 1)})
    register(deployment, keys={2: keys[2]}, status="unregistered")
    require_found(deployment.server.root, r"node-2\.pub is not among .* expected one of the 2 in .*; delete ")


@pytest.mark.parametrize("keep", [10, 4096, 5000])
def test_a_database_that_was_cut_short_is_found(deployment: Deployment, keep: int) -> None:
    register(deployment, keys=keys_of(deployment))
    content = deployment.server.database.read_bytes()
    assert len(content) > keep
    deployment.server.database.write_bytes(content[:keep])
    require_found(
        deployment.server.root, r"state\.db cannot be read \(.*\), expected the SuperLink's database; delete "
    )


def test_the_deployment_that_others_copy_is_as_it_was() -> None:
    assert problems_of(made_root()) == []
