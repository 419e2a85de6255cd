"""The app of a deployed node, which knows its own folder alone.

Its SuperNode names `node`, `data` and `folder` in its node config, and everything that the node trusts lies in
`folder`: the settings it agreed to, the vendor root, the hash of the enclave's code.

Flower starts a process for every message, so nothing is imported here that a node does not need.
"""

from flwr.app import Context

from nerv_fl.client.app import build_client_app
from nerv_fl.client.host import HostSettings
from nerv_fl.config import read_recipe
from nerv_fl.crypto import VerifyKey
from nerv_fl.deploy.layout import NodeMachine
from nerv_fl.deploy.paths import absolute
from nerv_fl.errors import ConfigError
from nerv_fl.io.logging import start_logs_from_environment


def load_settings(context: Context) -> HostSettings:
    """Return what a deployed node's process needs to know, all of it from the node's own folder.

    Raises:
        ConfigError: If the SuperNode's config lacks a path or a number, or the node's settings are wrong.
    """
    start_logs_from_environment()
    own = context.node_config
    machine = NodeMachine(absolute("node config folder", own.get("folder")))
    number = own.get("node")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f"node config node is {number!r}, expected the node's number")
    return HostSettings(
        config=read_recipe(machine.config),
        data=absolute("node config data", own.get("data")),
        nodes=machine.state,
        vendor_root=VerifyKey.from_text(machine.vendor_root.read_text(encoding="utf-8")),
        code_hash=machine.code_hash.read_text(encoding="utf-8").strip(),
        simulated=False,
        alone=number,
    )


client_app = build_client_app(load_settings)
