"""The apps of `flwr run`: the same server and nodes, started by Flower's own command.

    flwr run . --run-config 'recipe="quickstart" out="/absolute/folder" set="federation.num_rounds=3 seed=7"'

The server app prepares the run folder; the client apps of a simulation find it by the same absolute path.
"""

from pathlib import Path

from flwr.app import Context

from nerv_fl.client.app import build_client_app
from nerv_fl.client.host import HostSettings
from nerv_fl.errors import ConfigError
from nerv_fl.io.locks import hold
from nerv_fl.server.app import build_server_app
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.sessions import begin_session
from simulations.engine import host_settings
from simulations.prepare import begin_or_resume, holds_run, load_recipe, prepare, require_claimable


def load_folder(context: Context) -> RunFolder:
    """Open or begin the run that Flower's run config names, and prepare it; its lock is held until this process ends.

    Raises:
        CheckpointError: If the folder holds something else, or another process writes there.
        ConfigError: If `out` is not absolute, or a setting is wrong or differs from the run's.
    """
    config = load_recipe(str(context.run_config["recipe"]), overrides=str(context.run_config["set"]).split())
    out = _out(context)
    require_claimable(out, config, resume=holds_run(out))
    out.mkdir(parents=True, exist_ok=True)
    hold(RunFolder(out.resolve()).lock, written=out)
    folder = begin_or_resume(out, config)
    begin_session(folder)
    prepare(folder)
    return folder


def load_settings(context: Context) -> HostSettings:
    """Return what this hosting process needs to know, from the folder that the server app prepared."""
    return host_settings(RunFolder(_out(context)))


def _out(context: Context) -> Path:
    out = Path(str(context.run_config["out"]))
    if not out.is_absolute():
        raise ConfigError(f"out is {str(out)!r}, expected an absolute path: Flower starts its apps in other folders")
    return out


server_app = build_server_app(load_folder, simulated=True)
client_app = build_client_app(load_settings)
