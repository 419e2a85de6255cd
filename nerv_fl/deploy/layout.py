"""Where everything is in a deployment's folder: one folder a machine, which works wherever it is copied to.

ca/        ca.key ca.crt                    the authority; it belongs on no machine of the federation
server/    machine.env  *.sh                HOST, BIND and PORT, and what to start
tls/                             ca.crt server.crt server.key
supernodes/                      node-N.pub of each that may connect, node-N.json once registered, gone-* no more
app/ flower/ superexec.secret    the app that `flwr run` bundles, Flower's own files
run/                             the run folder, without data or keys of any node
node-N/    machine.env  *.sh                NODE, SUPERLINK and RUNTIME_PORT, and what to start
config.toml vendor-root.pub code-hash constants.json ca.crt      what this node pins
supernode.key supernode.pub data.h5 state/                       its own; state/ has its signing key
record.json                                                      its number, data and versions, for `check`
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nerv_fl.client.host import node_folder
from nerv_fl.client.node import KEY_FILE
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import write_atomically

ENV_FILE: Final = "machine.env"
GONE: Final = "gone-"
"""Beginning of the notes of SuperNodes that `register.sh` is to unregister."""

SERVER_ENV: Final = ("HOST", "BIND", "PORT")
NODE_ENV: Final = ("NODE", "SUPERLINK", "RUNTIME_PORT")


@dataclass(frozen=True)
class ServerMachine:
    """The folder of the machine that runs SuperLink, SuperExec and server."""

    root: Path

    @property
    def env(self) -> Path:
        """Host, address to bind and port."""
        return self.root / ENV_FILE

    @property
    def ca_certificate(self) -> Path:
        """The authority that its certificate is of."""
        return self.root / "tls" / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.root / "tls" / "server.crt"

    @property
    def key(self) -> Path:
        """The private key of the certificate."""
        return self.root / "tls" / "server.key"

    @property
    def secret(self) -> Path:
        """What SuperExec shows the SuperLink."""
        return self.root / "superexec.secret"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.root / "run"

    @property
    def database(self) -> Path:
        """Flower's own state: registered SuperNodes, and messages under way."""
        return self.root / "state.db"

    def supernode(self, number: int) -> Path:
        """Return the public key by which a node's SuperNode is known."""
        return self.root / "supernodes" / f"node-{number}.pub"

    def forget_supernode(self, number: int) -> None:
        """Remove a node's public key; if it was registered, leave a note for `register.sh` to unregister it."""
        key = self.supernode(number)
        key.unlink(missing_ok=True)
        note = key.with_suffix(".json")
        if note.exists():
            note.replace(note.with_name(f"{GONE}{secrets.token_hex(4)}"))


@dataclass(frozen=True)
class NodeMachine:
    """The folder of one node's machine."""

    root: Path

    @property
    def env(self) -> Path:
        """Number of the node, address of the SuperLink, port of the SuperNode's own app."""
        return self.root / ENV_FILE

    @property
    def config(self) -> Path:
        """The settings this node agreed to."""
        return self.root / "config.toml"

    @property
    def vendor_root(self) -> Path:
        """Pinned public key of the (mock) vendor root."""
        return self.root / "vendor-root.pub"

    @property
    def code_hash(self) -> Path:
        """Pinned hash of the enclave's code."""
        return self.root / "code-hash"

    @property
    def constants(self) -> Path:
        """The task's public constants when the federation was set up."""
        return self.root / "constants.json"

    @property
    def ca_certificate(self) -> Path:
        """The authority that the SuperLink's certificate must be of."""
        return self.root / "ca.crt"

    @property
    def key(self) -> Path:
        """The private key by which its SuperNode is known."""
        return self.root / "supernode.key"

    @property
    def public_key(self) -> Path:
        """The public half."""
        return self.root / "supernode.pub"

    @property
    def data(self) -> Path:
        """Its shard, and nobody else's."""
        return self.root / "data.h5"

    @property
    def state(self) -> Path:
        """Folder of its own folder: signing key, spending ledger, last envelope."""
        return self.root / "state"

    @property
    def record(self) -> Path:
        """Its number, data and versions when it was made."""
        return self.root / "record.json"

    def own_folder(self, number: int) -> Path:
        """Return the folder of the signing key, the spending ledger and the last envelope."""
        return node_folder(self.state, number)

    def signing_key(self, number: int) -> Path:
        """Return the path of the key that it signs updates with."""
        return self.own_folder(number) / KEY_FILE

    def signing_public_key(self, number: int) -> Path:
        """Return the path of the public half, which is on the roster."""
        return self.own_folder(number) / "signing.pub"


@dataclass(frozen=True)
class Deployment:
    """The folder that `nerv-fl deploy init` makes."""

    root: Path

    @property
    def ca_key(self) -> Path:
        """The authority's private key."""
        return self.root / "ca" / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate."""
        return self.root / "ca" / "ca.crt"

    @property
    def server(self) -> ServerMachine:
        """The server's machine."""
        return ServerMachine(self.root / "server")

    def node(self, number: int) -> NodeMachine:
        """Return a node's machine."""
        return NodeMachine(self.root / f"node-{number}")


@dataclass(frozen=True, kw_only=True)
class NodeRecord:
    """What `nerv-fl deploy check` compares a node's folder with.

    Attributes:
        node: The node's number.
        data_sha256: Hash of what its data file holds.
        versions: Versions of Python and of packages on the server, by name.
    """

    node: int
    data_sha256: str
    versions: Mapping[str, str]


def write_record(path: Path, record: NodeRecord) -> None:
    """Write a node's record."""
    write_atomically(path, (json.dumps(asdict(record), indent=1) + "\n").encode())


def read_record(path: Path) -> NodeRecord:
    """Read a node's record.

    Raises:
        DataError: If the file is missing or none.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        versions = {str(name): str(value) for name, value in table["versions"].items()}
        return NodeRecord(node=int(table["node"]), data_sha256=str(table["data_sha256"]), versions=versions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}), expected node, data_sha256 and versions"
        ) from error


def write_env(path: Path, values: Mapping[str, object]) -> None:
    """Write settings that a shell can source."""
    path.write_text("".join(f'{name}="{value}"\n' for name, value in values.items()), encoding="utf-8")


def read_env(path: Path, *, names: tuple[str, ...]) -> dict[str, str]:
    """Read settings that `write_env` wrote, perhaps edited since.

    Raises:
        ConfigError: If the file is missing, or a setting is missing, unknown or no NAME="value".
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}), expected {', '.join(names)}") from error
    values: dict[str, str] = {}
    for line in filter(None, map(str.strip, lines)):
        name, separator, value = line.partition("=")
        if line.startswith("#"):
            continue
        if not separator or name not in names:
            raise ConfigError(f'{path}: line {line!r}, expected NAME="value" with one of {", ".join(names)}')
        values[name] = value.strip("\"'")
    for name in names:
        if not values.get(name):
            raise ConfigError(f"{path}: {name} is missing, expected a value")
    return values


def port_of(path: Path, name: str, text: str) -> int:
    """Return a port of a machine's settings.

    Raises:
        ConfigError: If it is none.
    """
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise ConfigError(f"{path}: {name} is {text!r}, expected a port from 1 to 65535")
    return int(text)
