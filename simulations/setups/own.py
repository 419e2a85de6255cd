"""The setup of a task of your own: its class makes the data, and fresh weights are the start."""

from pathlib import Path

from nerv_fl.config import RunConfig
from nerv_fl.io.checksums import sha256_of
from nerv_fl.rng import torch_stream
from nerv_fl.tasks.initial_model import write_start
from nerv_fl.tasks.registry import AnyTask
from simulations.setups.setup import OnStep, pool_seed


class OwnSetup:
    """Data as the task's `make_data` writes them.

    Args:
        task: The task's class.
    """

    def __init__(self, task: type[AnyTask]) -> None:
        self._task = task

    def num_public_chains(self, config: RunConfig) -> int:
        """Return `data.bootstrap_chains`."""
        return config.data.bootstrap_chains

    def make_data(self, config: RunConfig, path: Path, *, pool: str, chains: int) -> None:
        """Let the task write a pool's file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._task.make_data(config, path, chains=chains, seed=pool_seed(config, pool))

    def content_hash(self, path: Path) -> str:
        """Return the hash of a file."""
        return sha256_of(path)

    def make_start(self, config: RunConfig, public: Path, *, out: Path, on_step: OnStep) -> None:
        """Write fresh weights, drawn from the seed, and what the task finds in the public data."""
        constants = self._task.find_constants(config, public)
        task = self._task(config, constants)
        model = task.build()
        task.draw_parameters(model, torch_stream(config.seed, "start", "weights"))
        write_start(out, model, constants=constants)
        on_step(0, 0, float("nan"))
