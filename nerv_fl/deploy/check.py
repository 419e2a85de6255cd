"""What is wrong with a deployment's folder, or with that of one of its machines; nothing in it is changed.

A check is a function in `nerv_fl.deploy.checks` and a line in one of the tables below.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from nerv_fl.deploy.checks import certificates, data, files, keys, network, proxy, settings, state, versions
from nerv_fl.deploy.checks.machines import CheckOptions, FederationView, NodeView, PairView, ServerView
from nerv_fl.deploy.diagnostics import Check, Finding, Results, Severity, run_checks
from nerv_fl.deploy.layout import Deployment, NodeMachine, ServerMachine
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.server.roster import active, read_members
from nerv_fl.server.run_folder import RunFolder

SERVER_CHECKS: Final[tuple[Check[ServerView], ...]] = (
    network.port_is_free,
    network.server_name_is_known,
    network.server_answers,
    network.server_shows_a_trusted_certificate,
    network.superlink_shows_the_certificate_on_disk,
    proxy.no_proxy_covers_the_server,
    certificates.authority_is_in_date_on_server,
    certificates.server_certificate_is_in_date,
    certificates.server_certificate_names_the_host,
    certificates.server_certificate_is_of_the_authority,
    certificates.server_key_is_of_the_certificate,
    files.private_files_of_server_are_private,
    files.held_out_pools_are_private,
    files.only_the_owner_writes_on_server,
    files.folders_above_are_the_owners,
    settings.server_settings_can_be_read,
    settings.server_scripts_are_unchanged,
    settings.app_is_unchanged,
    settings.run_folder_is_whole,
    settings.roster_has_the_nodes_of_the_settings,
    settings.supernodes_keys_are_there,
    versions.server_has_the_runs_versions,
    keys.enclaves_keys_are_those_of_its_evidence,
    keys.evidence_is_signed_by_the_vendor_root,
    keys.each_node_has_keys_of_its_own,
    keys.supernodes_are_registered_with_their_keys,
    data.pools_fit_the_settings,
    data.pools_are_as_written,
    data.pools_are_the_runs_own,
    state.run_is_writable,
    state.run_has_room,
    state.start_is_the_runs,
    state.checkpoint_is_whole,
    state.rewards_ledger_agrees_with_the_checkpoint,
    state.rounds_are_recorded,
    state.superlinks_database_is_whole,
)
"""What is looked at on the server's machine."""

NODE_CHECKS: Final[tuple[Check[NodeView], ...]] = (
    network.runtime_port_is_free,
    network.server_name_is_known,
    network.server_answers,
    network.server_shows_a_trusted_certificate,
    network.clock_agrees_with_the_server,
    proxy.no_proxy_covers_the_server,
    certificates.authority_is_in_date_on_node,
    certificates.shown_certificate_is_in_date,
    files.private_files_of_node_are_private,
    files.only_the_owner_writes_on_node,
    files.folders_above_are_the_owners,
    settings.node_settings_can_be_read,
    settings.node_script_is_unchanged,
    versions.record_is_there,
    versions.node_has_the_servers_versions,
    keys.supernode_key_is_of_its_public_key,
    keys.vendor_root_is_a_key,
    keys.code_hash_is_of_this_version,
    keys.signing_key_is_the_nodes,
    data.node_data_fits_the_settings,
    data.node_data_is_as_written,
    data.node_data_is_its_own,
    state.state_is_writable,
    state.state_has_room,
    state.spending_ledger_is_whole,
    state.sent_envelope_is_whole,
    state.spending_covers_what_was_sent,
)
"""What is looked at on a node's machine."""

PAIR_CHECKS: Final[tuple[Check[PairView], ...]] = (
    settings.node_has_the_servers_settings,
    settings.node_has_its_number_and_port,
    network.node_reaches_the_servers_address,
    certificates.node_has_the_servers_authority,
    keys.server_knows_the_supernodes_key,
    keys.node_pins_the_servers_vendor_root,
    keys.roster_has_the_nodes_signing_key,
    data.data_is_no_other_machines,
)
"""What is compared between a node, the server and the other nodes."""

OPERATOR_CHECKS: Final[tuple[Check[FederationView], ...]] = (
    files.authoritys_key_is_private,
    certificates.server_has_the_authoritys_certificate,
)
"""What is looked at in the folder of a whole federation besides."""


def check_folder(folder: Path, options: CheckOptions) -> Results:
    """Return what was looked at in a folder and what is wrong; nothing is written but a file that is removed again.

    Args:
        folder: What `nerv-fl deploy init` made, or the folder of one of its machines.
        options: What to look at.

    Raises:
        ConfigError: If the folder is neither.
    """
    server, node = ServerMachine(folder), NodeMachine(folder)
    # Any one of them may be lost, which is then found.
    if any(path.exists() for path in (server.certificate.parent, server.run, server.secret)):
        return run_checks(SERVER_CHECKS, ServerView(machine=server, options=options, here=True), name="server")
    if node.env.exists() or node.state.exists():
        return run_checks(NODE_CHECKS, NodeView(machine=node, options=options, here=True), name="node")
    if (folder / "server").is_dir():
        return _check_federation(Deployment(folder), options)
    raise ConfigError(f"{folder} holds no server/ and no machine.env, expected what `nerv-fl deploy init` made")


def _check_federation(deployment: Deployment, options: CheckOptions) -> Results:
    server = ServerView(machine=deployment.server, options=options, here=False)
    numbers = _numbers(deployment)
    nodes = {
        number: NodeView(machine=deployment.node(number), options=options, here=False)
        for number in numbers
        if deployment.node(number).root.is_dir()
    }
    federation = FederationView(deployment=deployment, server=server, nodes=nodes)
    results = run_checks(SERVER_CHECKS, server, name="server") + run_checks(OPERATOR_CHECKS, federation, name="ca")
    for number in numbers:
        if number not in nodes:
            results += Results(findings=(_missing(deployment.node(number).root, number),))
            continue
        pair = PairView(federation=federation, number=number)
        results += run_checks(NODE_CHECKS, nodes[number], name=f"node-{number}")
        results += run_checks(PAIR_CHECKS, pair, name=f"node-{number}")
    return results


def _missing(path: Path, number: int) -> Finding:
    return Finding(
        what=str(path),
        value="is not here, so it was not checked",
        expected=f"the folder of node {number}, here or on its machine alone",
        remedy=f"check it on its machine: `nerv-fl deploy check node-{number}`",
        severity=Severity.WARNING,
        check="folders of the nodes",
    )


def _numbers(deployment: Deployment) -> list[int]:
    """Return the nodes that take part; those with a folder if the roster cannot be read."""
    with suppress(DataError):
        return sorted(active(read_members(RunFolder(deployment.server.run).roster_path)))
    found = (re.fullmatch(r"node-(\d+)", path.name) for path in deployment.root.iterdir())
    return sorted(int(match[1]) for match in found if match)
