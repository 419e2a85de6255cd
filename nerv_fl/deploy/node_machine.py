"""Making one node's machine: its keys, what it pins, its settings and, until its operator has others, its data."""

import json
import secrets
from dataclasses import replace
from typing import Final

from nerv_fl.client.node import register
from nerv_fl.config import RunConfig, to_toml
from nerv_fl.deploy.certificates import make_supernode_key
from nerv_fl.deploy.layout import NodeMachine, ServerMachine, write_env
from nerv_fl.deploy.scripts import write_node_script
from nerv_fl.folders import copy_file
from nerv_fl.sealing import VerifyKey
from nerv_fl.server.folder import RunFolder
from nerv_fl.strategy.identity import VENDOR_ROOT_FILE, own_code_hash
from nerv_fl.tasks.known import find_task
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
    return register(machine.signing_key(number).parent)


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
