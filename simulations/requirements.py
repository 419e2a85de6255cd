"""Requirements of a run's settings on the machine, checked before any data are made: one function each."""

import shutil
from pathlib import Path
from typing import Final

from nerv_fl.config import RunConfig
from nerv_fl.crypto.sealed_storage import machine_secret_path
from nerv_fl.errors import ConfigError, SetupError
from nerv_fl.models.device import usable_device
from nerv_fl.models.presets import get_preset
from nerv_fl.own_packages import namesakes
from nerv_fl.ray_cluster import LOCAL, require_cluster
from nerv_fl.server.tracking import require_trackers
from nerv_fl.tasks.registry import find_task

BYTES_A_NODE: Final = 20_000
"""Keys, spending ledger and lock of a node, measured in blocks of 4 KiB."""

SPARE_BYTES: Final = 20_000_000
"""Checkpoints, certificates, records and report of a run of small models."""


WINDOW_BYTES: Final = 16
"""A compressed window of the forecaster's data, measured."""


def check_requirements(config: RunConfig, *, num_samples: int, folder: Path, ray: str) -> None:
    """Raise unless the machine has what a run's settings need.

    Args:
        config: The settings.
        num_samples: Samples that are still to be made.
        folder: Run folder, which need not exist.
        ray: "local", or the address of the cluster that runs the nodes.

    Raises:
        ConfigError: If the task cannot be imported, or no cluster answers.
        TaskError: If the task's module raises an error while it is imported.
        SetupError: If a package, a device, a home folder or room on the disk is missing.
    """
    require_no_namesake()
    find_task(config.task)
    require_trackers(config.tracking)
    require_devices(config, is_local=ray == LOCAL)
    require_home(config)
    data_bytes = num_samples * bytes_per_sample(config)
    require_room(folder, needed=data_bytes + config.federation.num_nodes * BYTES_A_NODE + SPARE_BYTES)
    require_cluster(ray)


def require_no_namesake() -> None:
    """Raise if the current folder, which Ray puts first in its workers, has a module of our main package's name.

    Raises:
        SetupError: If there is one.
    """
    for path in namesakes([str(Path.cwd())]):
        if "nerv_fl" in {path.stem, path.parent.name}:
            raise SetupError(f"{path} has the name of the package nerv_fl: rename it, or start in another folder")


def bytes_per_sample(config: RunConfig) -> int:
    """Return the measured size of a compressed sample in a data file, 0 where a task of the user's own writes it."""
    if config.task == "encoder":
        return get_preset(config.model.preset).num_accounts + 7 * config.data.max_transactions
    return WINDOW_BYTES if config.task == "forecaster" else 0


def require_devices(config: RunConfig, *, is_local: bool) -> None:
    """Raise unless torch finds the devices that are asked for; those of a cluster's other machines are not seen here.

    Raises:
        SetupError: If one is missing.
    """
    settings = {"bootstrap.device": config.bootstrap.device if config.bootstrap.steps else "cpu"}
    if is_local:
        settings["training.device"] = config.training.device
    for name, device in settings.items():
        try:
            usable_device(device, name=name)
        except ConfigError as error:
            raise SetupError(str(error)) from error


def require_home(config: RunConfig) -> None:
    """Raise unless the enclave's process, if there is one, has a place for the machine's secret.

    Raises:
        SetupError: If there is none.
    """
    if config.enclave.place == "process":
        machine_secret_path()


def require_room(folder: Path, *, needed: int) -> None:
    """Raise unless a folder's disk has room.

    Args:
        folder: A folder, which need not exist.
        needed: Bytes.

    Raises:
        SetupError: If fewer bytes are free.
    """
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise SetupError(f"{folder}: {free:,} bytes are free on its disk, expected at least {needed:,}")
