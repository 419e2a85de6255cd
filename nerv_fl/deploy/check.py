"""What is wrong with a deployment's folder, or with that of one of its machines, before anything starts."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nerv_fl.config import RunConfig
from nerv_fl.deploy.bundle import FILES
from nerv_fl.deploy.certificates import (
    LOOPBACK,
    read_certificate,
    read_supernode_key,
    read_supernode_public_key,
)
from nerv_fl.deploy.findings import Findings
from nerv_fl.deploy.layout import NODE_ENV, SERVER_ENV, Deployment, NodeMachine, ServerMachine, port_of, read_env
from nerv_fl.deploy.scripts import NODE_SCRIPTS, SERVER_SCRIPTS
from nerv_fl.errors import ConfigError, DataError, SealError
from nerv_fl.sealing import SigningKey, VerifyKey
from nerv_fl.server.folder import POOLS, RunFolder
from nerv_fl.server.roster import active, read_members
from nerv_fl.strategy.identity import (
    EVIDENCE_FILE,
    VENDOR_KEY_FILE,
    VENDOR_ROOT_FILE,
    EnclaveIdentity,
    own_code_hash,
    read_evidence,
)
from nerv_fl.strategy.keeping import KEEPING
from nerv_fl.tasks.known import find_task
from nerv_fl.tasks.start import Constants


def problems_of(folder: Path, *, ports: bool = True) -> list[str]:
    """Return what is wrong, a line each, naming the file, its value and what is expected; nothing is written.

    Args:
        folder: What `nerv-fl deploy init` made, or the folder of one of its machines.
        ports: Whether the machines' ports must be free.

    Raises:
        ConfigError: If the folder is neither.
    """
    findings, server, nodes = Findings(), ServerMachine(folder), NodeMachine(folder)
    if server.certificate.parent.exists():
        _check_server(findings, server, ports=ports)
    elif nodes.env.exists() or nodes.state.exists():
        _check_node(findings, nodes, ports=ports)
    elif (folder / "server").is_dir():
        _check_all(findings, Deployment(folder), ports=ports)
    else:
        raise ConfigError(f"{folder} holds no server/ and no machine.env, expected what `nerv-fl deploy init` made")
    return findings.lines


def _check_all(findings: Findings, deployment: Deployment, *, ports: bool) -> None:
    server = deployment.server
    config = _check_server(findings, server, ports=ports)
    if deployment.ca_key.parent.exists():
        findings.private(deployment.ca_key)
        _same_certificate(findings, server.ca_certificate, of=deployment.ca_certificate)
    taken: dict[str, Path] = {}
    for number in _numbers(deployment):
        machine = deployment.node(number)
        if not machine.root.is_dir():
            findings.add(f"{machine.root} does not exist, expected the folder of node {number}")
            continue
        own = _check_node(findings, machine, ports=ports)
        findings.same_config(machine.config, own, expected=config, of=_run(server).config_path)
        _check_pair(findings, server, machine, number=number, taken=taken)


def _numbers(deployment: Deployment) -> list[int]:
    """Return the nodes that take part; those with a folder if the roster cannot be read."""
    with suppress(DataError):
        return sorted(active(read_members(_run(deployment.server).roster_path)))
    found = (re.fullmatch(r"node-(\d+)", path.name) for path in deployment.root.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _run(server: ServerMachine) -> RunFolder:
    return RunFolder(server.run)


def _check_server(findings: Findings, server: ServerMachine, *, ports: bool) -> RunConfig | None:
    run, host = _run(server), None
    with findings.note():
        env = read_env(server.env, names=SERVER_ENV)
        host, port = env["HOST"], port_of(server.env, "PORT", env["PORT"])
        if ports:
            findings.port_free(server.env, "PORT", host=env["BIND"], port=port)
    findings.authority(server.ca_certificate)
    findings.certificate(server.certificate, key=server.key, authority=server.ca_certificate, host=host)
    findings.private(server.key, server.secret)
    _check_texts(findings, server.root, SERVER_SCRIPTS)
    _check_texts(findings, server.root / "app", FILES)
    findings.exists(run.manifest_path, run.roster_path, run.bootstrap_path)
    config = findings.config(run.config_path)
    if config is not None:
        _check_enclave(findings, run.enclave, place=config.enclave.place)
        _check_run(findings, server, config)
    return config


def _check_texts(findings: Findings, folder: Path, texts: Mapping[str, str]) -> None:
    """Check scripts, and the app, of which nodes run no other."""
    for name, text in texts.items():
        path = folder / name
        with findings.note():
            if _text(path) != text:
                findings.add(f"{path} was changed, or made by another nerv_fl, expected what this one makes")


def _check_enclave(findings: Findings, folder: Path, *, place: str) -> None:
    """Check that the enclave's keys can be read again, or are about to be born; sealed ones are not unsealed here."""
    unborn = folder / VENDOR_KEY_FILE
    if place != "here" and unborn.exists():
        findings.private(unborn)
        findings.exists(folder / VENDOR_ROOT_FILE)
        return
    findings.private(*(folder / name for name in KEEPING[place].files))
    if not (folder / EVIDENCE_FILE).exists():
        findings.exists(folder / EVIDENCE_FILE)
        return
    with findings.note():
        if place == "here":
            EnclaveIdentity.load(folder)
        else:
            read_evidence(folder)


def _check_run(findings: Findings, server: ServerMachine, config: RunConfig) -> None:
    """Check the roster and the held-out pools against the settings."""
    run, nodes = _run(server), config.federation.num_nodes
    with findings.note():
        members = read_members(run.roster_path)
        strays = sorted(set(range(nodes)) ^ members.keys())
        for number in strays:
            findings.add(
                f"{run.roster_path} has nodes {sorted(members)}, expected 0 to {nodes - 1} "
                f"(federation.num_nodes = {nodes}): node {number} is {'unknown' if number in members else 'missing'}"
            )
        if not strays and config.simulation.blocks != (expected := len(active(members))):
            findings.add(
                f"{run.config_path}: simulation.blocks is {config.simulation.blocks}, expected {expected}: "
                "a SuperNode a node"
            )
        for number in active(members):
            with findings.note():
                read_supernode_public_key(server.supernode(number))
    with findings.note():
        _, constants = find_task(config.task).read_start(run.bootstrap_path, config)
        for pool in POOLS:
            chains = getattr(config.data, f"{pool}_chains")
            findings.data(run.data(pool), config, constants=constants, chains=chains)


def _check_node(findings: Findings, machine: NodeMachine, *, ports: bool) -> RunConfig | None:
    number = None
    with findings.note():
        env = read_env(machine.env, names=NODE_ENV)
        if not env["NODE"].isdecimal():
            raise ConfigError(f"{machine.env}: NODE is {env['NODE']!r}, expected the node's number")
        number, port = int(env["NODE"]), port_of(machine.env, "RUNTIME_PORT", env["RUNTIME_PORT"])
        if ports:
            findings.port_free(machine.env, "RUNTIME_PORT", host=LOOPBACK, port=port)
    _check_pins(findings, machine)
    if number is not None:
        findings.private(machine.signing_key(number))
    config = findings.config(machine.config)
    if config is not None:
        with findings.note():
            constants, chains = _constants(machine.constants), config.data.chains_per_node
            findings.data(machine.data, config, constants=constants, chains=chains)
    return config


def _check_pins(findings: Findings, machine: NodeMachine) -> None:
    """Check what a node trusts, and the key by which it is known."""
    findings.authority(machine.ca_certificate)
    findings.private(machine.key, machine.data)
    _check_texts(findings, machine.root, NODE_SCRIPTS)
    with findings.note():
        found = read_supernode_key(machine.key)
        expected = read_supernode_public_key(machine.public_key)
        findings.equal(machine.key, found, expected=expected, of=machine.public_key)
    with findings.note():
        text = _text(machine.vendor_root)
        try:
            VerifyKey.from_text(text)
        except SealError as error:
            findings.add(f"{machine.vendor_root}: {error}")
    with findings.note():
        pinned, own = _text(machine.code_hash).strip(), own_code_hash()
        if pinned != own:
            findings.add(f"{machine.code_hash} is {pinned[:12]!r}, expected {own[:12]!r}, this nerv_fl's")


def _check_pair(
    findings: Findings, server: ServerMachine, machine: NodeMachine, *, number: int, taken: dict[str, Path]
) -> None:
    """Check what a node and the server must have in common."""
    run = _run(server)
    with findings.note():
        env, there = read_env(machine.env, names=NODE_ENV), read_env(server.env, names=SERVER_ENV)
        address = f"{there['HOST']}:{there['PORT']}"
        for name, expected in (("NODE", str(number)), ("SUPERLINK", address)):
            if env[name] != expected:
                findings.add(f"{machine.env}: {name} is {env[name]!r}, expected {expected!r}")
        if (other := taken.setdefault(env["RUNTIME_PORT"], machine.env)) != machine.env:
            findings.add(f"{machine.env}: RUNTIME_PORT is {env['RUNTIME_PORT']}, expected another than in {other}")
    with findings.note():
        own, known = read_supernode_public_key(machine.public_key), read_supernode_public_key(server.supernode(number))
        findings.equal(machine.public_key, own, expected=known, of=server.supernode(number))
    _same_certificate(findings, machine.ca_certificate, of=server.ca_certificate)
    root = run.enclave / VENDOR_ROOT_FILE
    with findings.note():
        findings.equal(machine.vendor_root, _text(machine.vendor_root), expected=_text(root), of=root)
    with findings.note():
        signs = SigningKey.load_private(machine.signing_key(number)).verify_key
        listed = read_members(run.roster_path).get(number)
        if listed is not None and listed.key != signs:
            findings.add(
                f"{machine.signing_key(number)} has the public key {signs.fingerprint}, "
                f"expected {listed.key.fingerprint}, node {number}'s in {run.roster_path}"
            )


def _same_certificate(findings: Findings, path: Path, *, of: Path) -> None:
    with findings.note():
        if read_certificate(path) != read_certificate(of):
            findings.add(f"{path} is another authority's certificate, expected that of {of}")


def _constants(path: Path) -> Constants:
    try:
        table = json.loads(_text(path))
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise DataError(f"{path} holds no JSON object, expected the task's constants")
    return table


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}), expected what `nerv-fl deploy init` made") from error
