"""The app of a deployment's server: the run config names the run folder, and nothing in it is made anew."""

import json
from collections.abc import Mapping

from flwr.app import Context

from nerv_fl.deploy.paths import absolute
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.enclave.identity import EVIDENCE_FILE, VENDOR_KEY_FILE
from nerv_fl.errors import CheckpointError
from nerv_fl.io.locks import hold
from nerv_fl.io.logging import start_logs_from_environment
from nerv_fl.server.app import build_server_app
from nerv_fl.server.run_folder import POOLS, RunFolder


def load_folder(context: Context) -> RunFolder:
    """Open the run folder that the run config names; nothing in it is made anew but an enclave's keys, once.

    Raises:
        CheckpointError: If it lacks what a deployment's run folder holds, its settings were changed, or another
            server is at work in it.
        ConfigError: If its privacy mechanism is one that only a simulation may have.
    """
    start_logs_from_environment()
    folder = RunFolder(absolute("run config folder", context.run_config.get("folder")))
    needed = (folder.config_path, folder.manifest_path, folder.roster_path, folder.bootstrap_path)
    vouched_for, evidence = folder.enclave / VENDOR_KEY_FILE, folder.enclave / EVIDENCE_FILE
    identity = vouched_for if vouched_for.exists() else evidence
    for path in (*needed, *map(folder.data, POOLS), folder.enclave, identity):
        if not path.exists():
            raise CheckpointError(f"{path} does not exist, expected the run folder that `nerv-fl deploy init` made")
    folder.require_config()
    folder.config.privacy.require_protocol()
    hold(folder.lock, written=folder.root)
    if identity == vouched_for:
        prepare_identity(folder.enclave, run=str(folder.read_manifest()["run"]), place=folder.config.enclave.place)
    return folder


def is_asked_to_stop(folder: RunFolder) -> bool:
    """Return whether `stop.sh` was called since `run.sh` was."""
    return folder.stop.exists()


def names_of_supernodes(folder: RunFolder) -> Mapping[int, str]:
    """Return the node behind each SuperNode's id, as `register.sh` noted it; empty if nobody did."""
    names: dict[int, str] = {}
    for path in sorted((folder.root.parent / "supernodes").glob("*.json")):
        try:
            names[int(json.loads(path.read_text(encoding="utf-8"))["node-id"])] = path.stem
        except (ValueError, KeyError, TypeError):
            continue
    return names


server_app = build_server_app(load_folder, load_names=names_of_supernodes, is_asked_to_stop=is_asked_to_stop)
