"""How a simulation of a task is set up: the protocol, and whose setup is whose."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from nerv_fl.config import RunConfig
from nerv_fl.rng import stream

OnStep: TypeAlias = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss) while a start is trained."""

PUBLIC = "genesis"
"""The pool that is public: a start may be trained on it. The others are "nodes", "search", "certify" and "final"."""


class Setup(Protocol):
    """Makes the data and the start of a simulation."""

    def num_public_chains(self, config: RunConfig) -> int:
        """Return how many chains the public pool needs."""

    def make_data(self, config: RunConfig, path: Path, *, pool: str, chains: int) -> None:
        """Write the data file of a pool, whole or not at all; what an interrupted call left may be used."""

    def content_hash(self, path: Path) -> str:
        """Return the hash of what a data file holds."""

    def make_start(self, config: RunConfig, public: Path, *, out: Path, on_step: OnStep) -> None:
        """Write the weights that the federation starts from, whole or not at all."""


def pool_seed(config: RunConfig, pool: str) -> int:
    """Return the seed of a pool's data."""
    return int(stream(config.seed, "data", pool).integers(2**31))
