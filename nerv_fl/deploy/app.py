"""The apps of a deployment: a node knows its own folder alone, and so does the server.

A SuperNode names `node`, `data` and `folder` in its node config, and everything that the node trusts lies in `folder`:
the settings it agreed to, the vendor root, the hash of the enclave's code. The server's `folder` is that of the run.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context

from nerv_fl.client.app import build_client_app
from nerv_fl.client.host import HostSettings
from nerv_fl.config import read_recipe
from nerv_fl.deploy.layout import NodeMachine
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.server.app import build_server_app
from nerv_fl.server.folder import POOLS, RunFolder
from nerv_fl.strategy.identity import read_vendor_root


def load_settings(context: Context) -> HostSettings:
    """Return what a deployed node's process needs to know, all of it from the node's own folder.

    Raises:
        ConfigError: If the SuperNode's config lacks a path or a number, or the node's settings are wrong.
    """
    own = context.node_config
    machine = NodeMachine(_absolute("node config folder", own.get("folder")))
    number = own.get("node")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f"node config node is {number!r}, expected the node's number")
    return HostSettings(
        config=read_recipe(machine.config),
        data=_absolute("node config data", own.get("data")),
        nodes=machine.state,
        vendor_root=read_vendor_root(machine.vendor_root),
        code_hash=machine.code_hash.read_text(encoding="utf-8").strip(),
        simulated=False,
        alone=number,
    )


def load_folder(context: Context) -> RunFolder:
    """Open the run folder that the run config names; nothing in it is made anew.

    Raises:
        CheckpointError: If it lacks what a deployment's run folder holds.
    """
    folder = RunFolder(_absolute("run config folder", context.run_config.get("folder")))
    needed = (folder.config_path, folder.manifest_path, folder.root / "roster.json", folder.bootstrap_path)
    for path in (*needed, *map(folder.data, POOLS), folder.enclave):
        if not path.exists():
            raise CheckpointError(f"{path} does not exist, expected the run folder that `nerv-fl deploy init` made")
    return folder


def names_of_supernodes(folder: RunFolder) -> Mapping[int, str]:
    """Return the node behind each SuperNode's id, as `register.sh` noted it; empty if nobody did."""
    names: dict[int, str] = {}
    for path in sorted((folder.root.parent / "supernodes").glob("*.json")):
        try:
            names[int(json.loads(path.read_text(encoding="utf-8"))["node-id"])] = path.stem
        except (ValueError, KeyError, TypeError):
            continue
    return names


def _absolute(what: str, value: object) -> Path:
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise ConfigError(f"{what} is {value!r}, expected an absolute path: Flower starts its apps in other folders")
    return Path(value)


server_app = build_server_app(load_folder, load_names=names_of_supernodes)
client_app = build_client_app(load_settings)
