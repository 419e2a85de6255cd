"""Who takes part, changed between two rounds: nodes join with a new number, and leave for good.

Nodes that stay notice nothing. Their settings say how large the federation was when they were set up, and nothing that
a node computes depends on it: a cohort's size changes neither its noise nor its sampling, and so not its epsilon.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.deploy.layout import SERVER_ENV, Deployment, NodeMachine, read_env
from nerv_fl.deploy.provision_node import PRIVATE, make_node
from nerv_fl.enclave.identity import EVIDENCE_FILE, read_evidence
from nerv_fl.errors import ConfigError
from nerv_fl.io.checksums import copy_file, staged_folder
from nerv_fl.server.roster import Member, active, read_members, write_members
from nerv_fl.server.run_folder import RunFolder

PATIENCE_S: Final = 10.0
"""Time that a server gets to end after its run has ended, seconds."""


def add_node(deployment: Deployment) -> int:
    """Make a machine for one more node, and put it on the roster; `run.sh` asks it from its next start on.

    Args:
        deployment: Only its server's machine is needed; the node's folder is made beside it.

    Returns:
        The node's number.

    Raises:
        CheckpointError: If the server is at work, or the run began with another version of nerv_fl.
        ConfigError: If the node's folder exists, or a setting forbids a larger federation; nothing is then changed.
    """
    server, run = deployment.server, RunFolder(deployment.server.run)
    with run.exclusive(patience_s=PATIENCE_S):
        config, members = run.config, read_members(run.roster_path)
        number = max(members, default=-1) + 1
        env, machine = read_env(server.env, names=SERVER_ENV), deployment.node(number)
        if machine.root.exists():
            raise ConfigError(
                f"{machine.root} exists and node {number} is not on the roster, expected nothing there: "
                "if `add` was cut short, delete it"
            )
        if (run.enclave / EVIDENCE_FILE).exists():
            read_evidence(run.enclave)
        grown = _resized(config, before=members, num_nodes=number + 1, num_active=len(active(members)) + 1)
        with staged_folder(machine.root) as staged:
            address = f"{env['HOST']}:{env['PORT']}"
            key = make_node(NodeMachine(staged), number, server=server, address=address, config=grown)
        machine.root.chmod(PRIVATE)
        server.forget_supernode(number)
        copy_file(machine.public_key, server.supernode(number))
        server.supernode(number).chmod(0o644)
        run.write_config(grown)
        write_members(run.roster_path, members | {number: Member(key=key, weight=float(config.data.samples_per_node))})
    return number


def remove_node(deployment: Deployment, number: int) -> None:
    """Take a node off the roster: from `run.sh`'s next start on it is not asked, and nothing is admitted from it.

    What it was paid stays its own, and its number is never given again. `register.sh` then unregisters its SuperNode.
    Done twice it does no more: a removal that was cut short is finished so.

    Raises:
        CheckpointError: If the server is at work.
        ConfigError: If there is no such node, it is the last one, or a setting forbids a smaller federation.
    """
    server, run = deployment.server, RunFolder(deployment.server.run)
    with run.exclusive(patience_s=PATIENCE_S):
        config, members = run.config, read_members(run.roster_path)
        staying = sorted(active(members).keys() - {number})
        if number not in members:
            raise ConfigError(f"node is {number}, expected one of {staying}, who take part")
        if not staying:
            raise ConfigError(f"node {number} is the last one, expected another to go on with")
        shrunk = _resized(config, before=members, num_nodes=config.federation.num_nodes, num_active=len(staying))
        write_members(run.roster_path, members | {number: replace(members[number], retired=True)})
        run.write_config(shrunk)
        server.forget_supernode(number)


def _resized(config: RunConfig, *, before: Mapping[int, Member], num_nodes: int, num_active: int) -> RunConfig:
    """Return the server's settings for another number of nodes: a cohort of everybody stays one of everybody."""
    federation = config.federation
    everybody = federation.cohort_size >= len(active(before))
    cohort = num_active if everybody else min(federation.cohort_size, num_active)
    return replace(
        config,
        federation=replace(federation, num_nodes=num_nodes, cohort_size=cohort),
        simulation=replace(config.simulation, blocks=num_active),
    )
