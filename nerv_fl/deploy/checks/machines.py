"""Machines as the checks see them: the folder, what its settings say, and what was asked for on the command line."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nerv_fl.config import RunConfig, read_recipe
from nerv_fl.deploy.checks.probe import Probe, probe_server
from nerv_fl.deploy.layout import (
    NODE_ENV,
    SERVER_ENV,
    Deployment,
    NodeMachine,
    NodeRecord,
    ServerMachine,
    port_of,
    read_env,
    read_record,
)
from nerv_fl.errors import ConfigError, DataError, NervError
from nerv_fl.server.roster import Member, read_members
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.registry import AnyTask, find_task, make_task


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What `nerv-fl deploy check` was asked for.

    Attributes:
        ports: Whether the machines' ports must be free.
        server: Whether the SuperLink must answer; None for where that can be expected: in a node's folder, and
            elsewhere if ports need not be free.
        environment: Environment variables of the process that will start the scripts.
    """

    ports: bool = True
    server: bool | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Address of the SuperLink as a machine's settings give it.

    Attributes:
        setting: File and name of the setting, for messages.
        host: Name or address.
        port: Port.
        authority: Certificate of the authority that the machine trusts.
    """

    setting: str
    host: str
    port: int
    authority: Path

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node's machine.

    Attributes:
        machine: Its folder.
        options: What was asked for.
        here: Whether the check runs on that machine; False for the folder of a whole federation.
    """

    machine: NodeMachine
    options: CheckOptions
    here: bool

    @cached_property
    def env(self) -> dict[str, str]:
        """The machine's settings."""
        return read_env(self.machine.env, names=NODE_ENV)

    @cached_property
    def number(self) -> int:
        """The node's number."""
        if not self.env["NODE"].isdecimal():
            raise ConfigError(f"{self.machine.env}: NODE is {self.env['NODE']!r}, expected the node's number")
        return int(self.env["NODE"])

    @cached_property
    def config(self) -> RunConfig:
        """The settings that the node agreed to."""
        return read_config(self.machine.config)

    @cached_property
    def task(self) -> AnyTask:
        """The task, with the constants that the node pins."""
        return make_task(self.config, read_constants(self.machine.constants))

    @cached_property
    def record(self) -> NodeRecord | None:
        """What was recorded of this machine when it was made, None in a folder of an older version."""
        return read_record(self.machine.record) if self.machine.record.exists() else None

    @cached_property
    def endpoint(self) -> Endpoint:
        """The SuperLink."""
        setting = f"{self.machine.env}: SUPERLINK"
        host, _, port = self.env["SUPERLINK"].rpartition(":")
        if not host:
            raise ConfigError(f"{setting} is {self.env['SUPERLINK']!r}, expected HOST:PORT")
        number = port_of(self.machine.env, "SUPERLINK", port)
        return Endpoint(setting=setting, host=host, port=number, authority=self.machine.ca_certificate)

    @property
    def asks_server(self) -> bool:
        """Whether the SuperLink must answer."""
        return self.here if self.options.server is None else self.options.server

    @cached_property
    def probe(self) -> Probe:
        """The SuperLink's answer."""
        return probe_server(self.endpoint.host, self.endpoint.port, authority=self.endpoint.authority)


@dataclass(frozen=True, kw_only=True)
class ServerView:
    """The server's machine; attributes as of `NodeView`."""

    machine: ServerMachine
    options: CheckOptions
    here: bool

    @cached_property
    def env(self) -> dict[str, str]:
        """The machine's settings."""
        return read_env(self.machine.env, names=SERVER_ENV)

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.machine.run)

    @cached_property
    def config(self) -> RunConfig:
        """The run's settings."""
        return read_config(self.run.config_path)

    @cached_property
    def manifest(self) -> Mapping[str, object]:
        """What the run began with."""
        return self.run.read_manifest()

    @cached_property
    def members(self) -> dict[int, Member]:
        """The roster."""
        return read_members(self.run.roster_path)

    @cached_property
    def start(self) -> tuple[AnyTask, int]:
        """The task with the constants of the run's start, and its number of parameters."""
        theta_P, constants = find_task(self.config.task).read_start(self.run.bootstrap_path, self.config)
        return make_task(self.config, constants), len(theta_P)

    @cached_property
    def endpoint(self) -> Endpoint:
        """The SuperLink, as `register.sh` and SuperExec reach it."""
        port = port_of(self.machine.env, "PORT", self.env["PORT"])
        setting = f"{self.machine.env}: HOST"
        return Endpoint(setting=setting, host=self.env["HOST"], port=port, authority=self.machine.ca_certificate)

    @property
    def asks_server(self) -> bool:
        """Whether the SuperLink must answer."""
        return not self.options.ports if self.options.server is None else self.options.server

    @cached_property
    def probe(self) -> Probe:
        """The SuperLink's answer."""
        return probe_server(self.endpoint.host, self.endpoint.port, authority=self.endpoint.authority)


@dataclass(frozen=True, kw_only=True)
class FederationView:
    """The folder of a whole federation."""

    deployment: Deployment
    server: ServerView
    nodes: Mapping[int, NodeView]


@dataclass(frozen=True, kw_only=True)
class PairView:
    """One node of a federation, and what it must have in common with the server and with other nodes."""

    federation: FederationView
    number: int

    @property
    def node(self) -> NodeView:
        """The node."""
        return self.federation.nodes[self.number]

    @property
    def server(self) -> ServerView:
        """The server."""
        return self.federation.server

    @property
    def earlier(self) -> list[NodeView]:
        """The nodes of smaller numbers: each pair of nodes is compared once."""
        return [node for number, node in sorted(self.federation.nodes.items()) if number < self.number]


def read_config(path: Path) -> RunConfig:
    """Read settings.

    Raises:
        ConfigError: If they are wrong, naming the file.
    """
    try:
        return read_recipe(path)
    except NervError as error:
        text = str(error)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from error


def read_constants(path: Path) -> Constants:
    """Read the task's constants that a node pins.

    Raises:
        DataError: If the file holds none.
    """
    try:
        table = json.loads(read_text(path))
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise DataError(f"{path} holds no JSON object, expected the task's constants")
    return table


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: If it is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist, expected what `nerv-fl deploy init` made") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}), expected what `nerv-fl deploy init` made") from error
