"""The one file that starts Flower and Ray."""

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

from nerv_fl.client.app import build_client_app
from nerv_fl.client.host import HostSettings
from nerv_fl.client.local_training import LocalTraining, train_honestly
from nerv_fl.config import RunConfig
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, own_code_hash, read_vendor_root
from nerv_fl.ray_cluster import LOCAL, start_ray
from nerv_fl.server.app import build_server_app, ignore_round
from nerv_fl.server.recorder import OnRound
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.registry import task_environment
from simulations.adversaries import AdversarialTraining
from simulations.faults import FaultyTraining

QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of every process that is started: no telemetry, one thread, actors as urgent as any (Ray: nice 15)."""

LOST_ACTOR: Final = {"max_restarts": -1, "max_task_retries": 1}
"""Flower keeps an actor that died in its pool, where it fails every message it gets: Ray starts it again, and gives it
the block it died on once more. Its nodes resend what they have stored, so nobody trains twice."""


def run(folder: RunFolder, *, ray: str = LOCAL, on_round: OnRound = ignore_round) -> None:
    """Run a prepared folder's rounds with virtual SuperNodes on Ray actors.

    Args:
        folder: The run folder; every machine of a cluster must see it under its own path.
        ray: Address of a running cluster of which this machine is a part: an actor on each of its CPUs, whatever
            `simulation.actors` says. "local" starts Ray on this machine alone.
        on_round: Told of each finished round.

    Raises:
        ConfigError: If there is no cluster at the address.
        SetupError: If Ray cannot start on this machine.
        NervError: Whatever stopped the server.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    _give_flower_a_home()
    from flwr.simulation import run_simulation  # noqa: PLC0415 (reads the environment when imported)
    from flwr.simulation.ray_transport.ray_actor import ClientAppActor  # noqa: PLC0415

    # An actor ends by leaving its last task, which Ray would announce as a failure to be retried.
    ClientAppActor.__ray_metadata__.method_meta.max_task_retries["terminate"] = 0  # type: ignore[attr-defined]
    # What Flower logs as errors are the failures of nodes, one traceback a block and round: the server tells them once.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    settings = host_settings(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start_ray(
            ray, num_cpus=folder.config.simulation.actors, env_vars=task_environment()
        )  # Flower uses a Ray that is started already
        run_simulation(
            server_app=build_server_app(lambda _context: folder, on_round=on_round, simulated=True),
            client_app=build_client_app(lambda _context: settings),
            num_supernodes=folder.config.simulation.blocks,
            backend_config=backend_config(folder),
        )


def _give_flower_a_home() -> None:
    """Name a folder for Flower's credentials where the user has no home: a simulation writes none, but asks where."""
    try:
        Path.home()
    except RuntimeError:
        os.environ.setdefault("FLWR_HOME", str(Path(tempfile.gettempdir()) / f"flwr-{os.getuid()}"))


def host_settings(folder: RunFolder) -> HostSettings:
    """Return what a simulation's hosting processes need to know; they pin the run's own mock vendor root."""
    config = folder.config
    return HostSettings(
        config=config,
        data=folder.data("nodes"),
        nodes=folder.nodes,
        vendor_root=read_vendor_root(folder.enclave / VENDOR_ROOT_FILE),
        code_hash=own_code_hash(),
        simulated=True,
        training=_training(config),
    )


def _training(config: RunConfig) -> LocalTraining:
    training: LocalTraining = AdversarialTraining(config) if config.adversaries.any else train_honestly
    return FaultyTraining(config, training) if config.faults.failure else training


def backend_config(folder: RunFolder) -> dict[str, Any]:
    """Return Flower's settings of actors: one a CPU and a part of a GPU, started again if it dies."""
    resources = {"num_cpus": 1, "num_gpus": folder.config.simulation.gpus_per_actor}
    return {"client_resources": resources | LOST_ACTOR}
