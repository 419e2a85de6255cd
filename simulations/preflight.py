"""Preflight of a run's task: on a few chains before data are made, and on the prepared folder before Ray starts."""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch

from nerv_fl.client.host import samples_of
from nerv_fl.client.preflight import check_task
from nerv_fl.config import RunConfig
from nerv_fl.errors import NervError, TaskError
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.registry import KNOWN, AnyTask, find_task, make_task
from nerv_fl.tasks.task import DataSize
from nerv_fl.tasks.user_code import describe
from simulations.setups.known import setup_of
from simulations.setups.setup import PUBLIC

FEW_CHAINS: Final = 4
"""Chains that a user's task makes for its first check; two units of either kind fit in them."""

T = TypeVar("T")


def check_user_task(config: RunConfig) -> None:
    """Check a user's own task on a few public chains, which take a moment where a run's data may take minutes.

    The tasks that are shipped need a bootstrap for their constants; `check_prepared` checks them.

    Raises:
        TaskError: If the task's code fails, or does not have a property that training relies on.
        ConfigError: If the task cannot be imported, makes no data, or contradicts a setting.
    """
    if config.task in KNOWN:
        return
    kind, setup = find_task(config.task), setup_of(config.task)
    with tempfile.TemporaryDirectory(prefix="nerv-fl-preflight-") as folder:
        path = Path(folder) / "public"
        for pool, copy in ((PUBLIC, path), (PUBLIC, path.with_name("again")), ("nodes", path.with_name("nodes"))):
            _run(config, "make_data()", partial(setup.make_data, config, copy, pool=pool, chains=FEW_CHAINS))
        _require_seeded(config, path)
        constants = _run(config, "find_constants()", lambda: kind.find_constants(config, path))
        _run(config, "find_constants(), as JSON,", lambda: json.dumps(dict(constants)))
        task = _run(config, "the constructor", lambda: kind(config, constants))
        _check_on(task, path, chains=FEW_CHAINS)


def check_prepared(folder: RunFolder, pools: Mapping[str, int]) -> None:
    """Check the task of a prepared run at the weights that the run starts from, and the size of every pool.

    Args:
        folder: Run folder with data and bootstrap.
        pools: Chains that each pool must have, by its name.

    Raises:
        TaskError: As `check_user_task`.
        CheckpointError: If the bootstrap is damaged, or of another model.
        DataError: If a pool is damaged.
    """
    config = folder.config
    start_P, constants = find_task(config.task).read_start(folder.bootstrap_path, config)
    task = make_task(config, constants)
    _check_on(task, folder.data(PUBLIC), chains=pools[PUBLIC], theta_P=torch.from_numpy(start_P))
    for pool, chains in pools.items():
        with _opened(task, folder.data(pool)) as data:
            _require_size(task, data, chains=chains)


def _require_seeded(config: RunConfig, path: Path) -> None:
    """Check that a file depends on its seed and on nothing else, by those made of the same and of another seed."""
    drawn = path.read_bytes()
    if path.with_name("again").read_bytes() != drawn:
        raise TaskError(
            f"task {config.task!r}: make_data() writes two different files for the same arguments, expected the same "
            "bytes: draw from a generator of the seed alone, and write no date"
        )
    if path.with_name("nodes").read_bytes() == drawn:
        raise TaskError(
            f"task {config.task!r}: make_data() writes the same file for two seeds, expected different samples: nodes "
            "and held-out pools would share theirs"
        )


def _check_on(task: AnyTask, path: Path, *, chains: int, theta_P: torch.Tensor | None = None) -> None:
    with _opened(task, path) as data:
        steps = _require_size(task, data, chains=chains)
        check_task(task, data, samples_of(np.arange(chains), steps=steps), theta_P=theta_P)


def _opened(task: AnyTask, path: Path) -> "closing[Any]":
    data = _run(task.config, "open()", lambda: task.open(path))
    if not callable(getattr(data, "close", None)):
        raise TaskError(
            f"task {task.config.task!r}: open() returns a {type(data).__name__} without a method close(), "
            "expected an object that is closed after use"
        )
    return closing(data)


def _require_size(task: AnyTask, data: object, *, chains: int) -> int:
    """Return the steps of a chain, after checking that a file holds what was requested of the task."""
    size = _run(task.config, "size_of()", lambda: task.size_of(data))
    expected = (chains, task.config.data.steps)
    if not isinstance(size, DataSize):
        raise TaskError(
            f"task {task.config.task!r}: size_of() returns {str(size)[:80]}, expected DataSize(chains=..., steps=...)"
        )
    if tuple(size) != expected:
        raise TaskError(
            f"task {task.config.task!r}: size_of() gives {tuple(size)} as chains and steps of a file for which "
            f"make_data() was called with chains = {chains} and data.steps = {task.config.data.steps}, "
            f"expected {expected}"
        )
    return size.steps


def _run(config: RunConfig, what: str, call: Callable[[], T]) -> T:
    """Return what a call into the task returns; an exception of its code becomes a TaskError."""
    try:
        return call()
    except (NervError, OSError):
        raise
    except Exception as error:
        raise TaskError(f"task {config.task!r}: {what} raises {describe(error)}") from error
