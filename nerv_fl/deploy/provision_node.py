"""Making one node's machine: its keys, what it pins, its settings and, until its operator has others, its data."""

import json
import secrets
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

from nerv_fl.client.node import register
from nerv_fl.config import RunConfig, read_recipe, to_toml
from nerv_fl.crypto import VerifyKey
from nerv_fl.deploy.certificates import make_supernode_key
from nerv_fl.deploy.layout import NodeMachine, NodeRecord, ServerMachine, read_record, write_env, write_record
from nerv_fl.deploy.scripts import write_node_script
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, own_code_hash
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import copy_file
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.registry import find_task
from simulations.setups.known import setup_of

FIRST_RUNTIME_PORT: Final = 9100
"""Node N's own app listens on this + N, on loopback."""

PRIVATE: Final = 0o700


def make_node(
    machine: NodeMachine, number: int, *, server: ServerMachine, address: str, config: RunConfig
) -> VerifyKey:
    """Make one node's machine, and return the key that it signs updates with.

    Args:
        machine: Its folder, which may exist and must be empty.
        number: The node's number.
        server: The server's machine, with its run prepared; the node gets copies of what is public there.
        address: The SuperLink's host and port.
        config: The settings that the node agrees to.
    """
    machine.root.mkdir(mode=PRIVATE, exist_ok=True)
    for folder in (machine.state, machine.signing_key(number).parent):
        folder.mkdir(mode=PRIVATE)
    write_env(machine.env, {"NODE": number, "SUPERLINK": address, "RUNTIME_PORT": FIRST_RUNTIME_PORT + number})
    _pin(machine, server, config=config)
    make_supernode_key(machine.key, machine.public_key)
    chains = config.data.chains_per_node
    setup_of(config.task).make_data(secret_seed(config), machine.data, pool="nodes", chains=chains)
    machine.data.chmod(0o600)
    write_node_script(machine)
    key = register(machine.own_folder(number))
    write_atomically(machine.signing_public_key(number), key.to_text().encode())
    _write_record(machine, number, server=server, config=config)
    forbid_writing(machine.root)
    return key


def record_data(machine: NodeMachine) -> str:
    """Record what a node's data file holds as this node's data, and return its hash.

    Called by an operator who has replaced the file that `make_node` wrote.

    Raises:
        DataError: If the file or the folder's record cannot be read.
    """
    record, config = read_record(machine.record), read_recipe(machine.config)
    digest = setup_of(config.task).content_hash(machine.data)
    write_record(machine.record, replace(record, data_sha256=digest))
    return digest


def forbid_writing(folder: Path) -> None:
    """Take from everybody but the owner the permission to write in a folder, whatever the umask was."""
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o022:
            path.chmod(mode & ~0o022)


def _write_record(machine: NodeMachine, number: int, *, server: ServerMachine, config: RunConfig) -> None:
    """Record the server's versions and not this machine's: a node may be added from another one."""
    versions = RunFolder(server.run).read_manifest().get("versions", {})
    digest = setup_of(config.task).content_hash(machine.data)
    write_record(machine.record, NodeRecord(node=number, data_sha256=digest, versions=versions))


def secret_seed(config: RunConfig) -> RunConfig:
    """Return the settings with a seed that nobody knows, to draw data from."""
    return replace(config, seed=secrets.randbits(62))


def _pin(machine: NodeMachine, server: ServerMachine, *, config: RunConfig) -> None:
    """Give a node its own copy of what it trusts."""
    run = RunFolder(server.run)
    _, constants = find_task(config.task).read_start(run.bootstrap_path, config)
    machine.config.write_text(to_toml(config), encoding="utf-8")
    machine.code_hash.write_text(own_code_hash() + "\n", encoding="utf-8")
    machine.constants.write_text(json.dumps(constants, sort_keys=True) + "\n", encoding="utf-8")
    copy_file(run.enclave / VENDOR_ROOT_FILE, machine.vendor_root)
    copy_file(server.ca_certificate, machine.ca_certificate)
