"""Making a deployment's folder: keys, settings, data and scripts of every machine.

Each node's data and the held-out pools are drawn from secret seeds of their own, so that nobody can draw another's from
the settings that all machines share. They stand for what the operators have: a node's `data.h5` is theirs to replace.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.crypto import VerifyKey
from nerv_fl.deploy.certificates import make_authority
from nerv_fl.deploy.layout import Deployment, write_env
from nerv_fl.deploy.provision_node import PRIVATE, forbid_writing, make_node, secret_seed
from nerv_fl.deploy.renew import renew_server_certificate
from nerv_fl.deploy.scripts import write_server_scripts
from nerv_fl.enclave.identity import EnclaveIdentity, leave_vendor_key
from nerv_fl.errors import ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import copy_file, staged_folder
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.validation import in_range
from simulations.bootstrap import given_weights
from simulations.prepare import first_manifest, make_bootstrap, server_pools
from simulations.setups.known import setup_of
from simulations.setups.setup import PUBLIC

Tell = Callable[[str], None]
"""Called with what is about to be done, in words."""

PORT: Final = 9092
SECRET_BYTES: Final = 32


def initialise(out: Path, config: RunConfig, *, host: str, port: int = PORT, tell: Tell = lambda _what: None) -> None:
    """Make a deployment's folder, whole or not at all.

    Args:
        out: Folder to make; it must be new or empty.
        config: The federation's settings; every node takes part in it from its own machine.
        host: Name or address under which nodes reach the server.
        port: The SuperLink's port; node N's own app listens on `FIRST_RUNTIME_PORT` + N, on loopback.
        tell: Told of each step.

    Raises:
        ConfigError: If the folder is not new, or a setting makes no sense outside a simulation.
    """
    nodes = config.federation.num_nodes
    require_deployable(config)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", host):
        raise ConfigError(f"host is {host!r}, expected a name or an IPv4 address")
    in_range("port", port, low=1, high=2**16 - 1)
    config = replace(config, simulation=replace(config.simulation, blocks=nodes))
    address = f"{host}:{port}"
    with staged_folder(out) as staged:
        deployment = Deployment(staged)
        run = RunFolder(deployment.server.run)
        _make_authority(deployment)
        _make_server(deployment, host=host, port=port)
        _prepare_run(run, config, tell=tell)
        roster: dict[int, VerifyKey] = {}
        for number in range(nodes):
            tell(f"node {number}: keys, {config.data.chains_per_node:,} chains of its own")
            machine = deployment.node(number)
            roster[number] = make_node(machine, number, server=deployment.server, address=address, config=config)
            copy_file(machine.public_key, deployment.server.supernode(number))
        weights = dict.fromkeys(roster, float(config.data.samples_per_node))
        run.write_roster(roster, weights=weights)
        write_server_scripts(deployment.server)
        forbid_writing(staged)
    out.chmod(PRIVATE)


def require_deployable(config: RunConfig) -> None:
    """Refuse settings that make no sense outside a simulation.

    Raises:
        ConfigError: Naming the first.
    """
    for name, section in (("adversaries", config.adversaries), ("faults", config.faults)):
        if section.any:
            raise ConfigError(f"{name} are set, expected none in a deployment: its nodes refuse them")
    config.privacy.require_protocol()
    if config.data.partition != "chain":
        raise ConfigError(
            f"data.partition is {config.data.partition!r}, expected 'chain' in a deployment: a node holds its own data"
        )


def _make_authority(deployment: Deployment) -> None:
    deployment.ca_key.parent.mkdir(mode=PRIVATE)
    make_authority(deployment.ca_key, deployment.ca_certificate)


def _make_server(deployment: Deployment, *, host: str, port: int) -> None:
    machine = deployment.server
    for folder in (machine.root, machine.root / "tls", machine.root / "supernodes"):
        folder.mkdir(mode=PRIVATE)
    write_env(machine.env, {"HOST": host, "BIND": host, "PORT": port})
    copy_file(deployment.ca_certificate, machine.ca_certificate)
    write_atomically(machine.secret, secrets.token_hex(SECRET_BYTES).encode(), mode=0o600)
    renew_server_certificate(deployment, host=host)


def _prepare_run(folder: RunFolder, config: RunConfig, *, tell: Tell) -> None:
    """Make what the server needs before round 1, except the roster."""
    folder.root.mkdir(mode=PRIVATE)
    weights, setup, hashes = given_weights(config), setup_of(config.task), {}
    folder.write_config(config)
    folder.update_manifest(**first_manifest(config))
    for pool, chains in server_pools(config).items():
        tell(f"server: pool {pool}, {chains:,} chains")
        drawn_from = config if pool == PUBLIC else secret_seed(config)
        setup.make_data(drawn_from, folder.data(pool), pool=pool, chains=chains)
        hashes[pool] = setup.content_hash(folder.data(pool))
    folder.update_manifest(data=hashes)
    tell("server: the model to start from")
    make_bootstrap(folder, weights, progress=lambda *_: None)
    folder.enclave.mkdir(mode=PRIVATE)
    if config.enclave.place == "here":
        EnclaveIdentity.create(folder.enclave, run=str(folder.read_manifest()["run"]))
    else:  # its keys are born on the server's machine, at the first start
        leave_vendor_key(folder.enclave)
