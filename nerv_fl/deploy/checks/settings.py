"""Settings, scripts and the roster: whether they are what this version makes, and agree between machines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nerv_fl.config import RunConfig, as_table, flatten
from nerv_fl.deploy.certificates import read_supernode_public_key
from nerv_fl.deploy.checks.machines import NodeView, PairView, ServerView, read_text
from nerv_fl.deploy.diagnostics import MADE_BY_INIT, RESTORE, Finding, finding_of
from nerv_fl.deploy.flower_app_bundle import FILES
from nerv_fl.deploy.scripts import NODE_SCRIPTS, SERVER_SCRIPTS
from nerv_fl.errors import ConfigError
from nerv_fl.server.roster import active

THE_SERVERS_OWN: Final = ("federation.num_nodes", "federation.cohort_size", "simulation.blocks")
"""Settings that change when a node joins or leaves; a node does nothing with them."""


def node_settings_can_be_read(node: NodeView) -> Iterator[Finding]:
    """Find settings that are missing, unknown, of the wrong type, or of another node."""
    number = node.number
    yield from _deployable(node.machine.config, node.config)
    if node.record is not None and node.record.node != number:
        yield Finding(
            what=f"{node.machine.env}: NODE",
            value=f"is {node.env['NODE']!r}",
            expected=f"{str(node.record.node)!r}, as recorded in {node.machine.record}",
            remedy="correct it: the folder is that node's",
        )


def node_script_is_unchanged(node: NodeView) -> Iterator[Finding]:
    """Find a start script that was changed, or that another version made."""
    yield from _texts(node.machine.root, NODE_SCRIPTS)


def server_settings_can_be_read(server: ServerView) -> Iterator[Finding]:
    """Find settings that are missing, unknown or of the wrong type."""
    _ = server.endpoint
    yield from _deployable(server.run.config_path, server.config)


def server_scripts_are_unchanged(server: ServerView) -> Iterator[Finding]:
    """Find a start script that was changed, or that another version made."""
    yield from _texts(server.machine.root, SERVER_SCRIPTS)


def app_is_unchanged(server: ServerView) -> Iterator[Finding]:
    """Find another app than the one that nodes run."""
    yield from _texts(server.machine.root / "app", FILES)


def run_folder_is_whole(server: ServerView) -> Iterator[Finding]:
    """Find files that a run needs before its first round and that are missing."""
    for path in (server.run.manifest_path, server.run.roster_path, server.run.bootstrap_path):
        if not path.exists():
            yield Finding(what=str(path), value="does not exist", expected=MADE_BY_INIT, remedy=RESTORE)


def roster_has_the_nodes_of_the_settings(server: ServerView) -> Iterator[Finding]:
    """Find a roster with other nodes than the settings say."""
    members, nodes = server.members, server.config.federation.num_nodes
    strays = sorted(set(range(nodes)) ^ members.keys())
    for number in strays:
        yield Finding(
            what=str(server.run.roster_path),
            value=f"has nodes {sorted(members)}",
            expected=f"0 to {nodes - 1} (federation.num_nodes = {nodes}): "
            f"node {number} is {'unknown' if number in members else 'missing'}",
            remedy=RESTORE,
        )
    blocks, taking_part = server.config.simulation.blocks, len(active(members))
    if not strays and blocks != taking_part:
        yield Finding(
            what=f"{server.run.config_path}: simulation.blocks",
            value=f"is {blocks}",
            expected=f"{taking_part}: a SuperNode a node",
            remedy="correct it; if `nerv-fl deploy remove` was cut short, call it again",
        )


def supernodes_keys_are_there(server: ServerView) -> Iterator[Finding]:
    """Find a node on the roster whose SuperNode's public key is missing or none."""
    for number in sorted(active(server.members)):
        read_supernode_public_key(server.machine.supernode(number))
    yield from ()


def node_has_the_servers_settings(pair: PairView) -> Iterator[Finding]:
    """Find settings that differ between a node and the server."""
    ours, theirs = (flatten(as_table(config)) for config in (pair.node.config, pair.server.config))
    for key, value in ours.items():
        if value != theirs[key] and key not in THE_SERVERS_OWN:
            yield Finding(
                what=f"{pair.node.machine.config}: {key}",
                value=f"is {value!r}",
                expected=f"{theirs[key]!r} as in {pair.server.run.config_path}",
                remedy="agree on one value before round 1; a node keeps to its own",
            )


def node_has_its_number_and_port(pair: PairView) -> Iterator[Finding]:
    """Find a folder whose settings are of another node, or whose port another node of this machine has."""
    machine, env = pair.node.machine, pair.node.env
    if env["NODE"] != str(pair.number) and pair.node.record is None:
        yield Finding(
            what=f"{machine.env}: NODE",
            value=f"is {env['NODE']!r}",
            expected=f"{str(pair.number)!r}",
            remedy="correct it: the folder is that node's",
        )
    for other in pair.earlier:
        if other.machine.env.exists() and other.env["RUNTIME_PORT"] == env["RUNTIME_PORT"]:
            yield Finding(
                what=f"{machine.env}: RUNTIME_PORT",
                value=f"is {env['RUNTIME_PORT']}",
                expected=f"another than in {other.machine.env}",
                remedy="set another port, unless the nodes run on two machines",
            )


def _deployable(path: Path, config: RunConfig) -> Iterator[Finding]:
    """Find adversaries and faults, which only a simulation has."""
    for name, section in (("adversaries", config.adversaries), ("faults", config.faults)):
        usual = flatten(as_table(type(section)()))
        for key, value in flatten(as_table(section)).items():
            if section.any and value != usual[key]:
                yield Finding(
                    what=f"{path}: {name}.{key}",
                    value=f"is {value}",
                    expected="none outside a simulation",
                    remedy=f"set it to {usual[key]}",
                )
    try:
        config.privacy.require_protocol()
    except ConfigError as error:
        yield finding_of(ConfigError(f"{path}: {error}"))


def _texts(folder: Path, texts: Mapping[str, str]) -> Iterator[Finding]:
    for name, text in texts.items():
        if read_text(folder / name) != text:
            yield Finding(
                what=str(folder / name),
                value="was changed, or made by another nerv_fl",
                expected="what this one makes",
                remedy=RESTORE,
            )
