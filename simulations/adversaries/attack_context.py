"""What an adversary has at hand: its work, its role, and training on any shard with anyone's batch and noise.

Adversaries of one operator need not speak to each other: what another identity draws is a function of the run's seed,
so each works out alone what they would agree on, in whatever process it lives.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nerv_fl.client.host import samples_of
from nerv_fl.client.local_training import Assignment, Streams, seeded_streams
from nerv_fl.config import RunConfig
from nerv_fl.rng import Source
from simulations.adversaries.roles import Role


class Silence:
    """Noise of an adversary that adds none."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """Return zeros."""
        return np.zeros(size)

    def standard_normal(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return zeros."""
        return np.zeros(size)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One adversary's work of one round."""

    work: Assignment
    role: Role
    config: RunConfig

    def train(
        self,
        *,
        shard_of: int | None = None,
        batch_of: int | None = None,
        noise: Source | None = None,
        data: Any = None,
    ) -> Tensor:
        """Return an update, float32 (P,), drawn afresh from the seed.

        Args:
            shard_of: Whose shard to train on; its own if None.
            batch_of: Whose batches and masks to draw; its own if None.
            noise: Noise in place of its own.
            data: A data file in place of the shared one.
        """
        work, task = self.work, self.work.trainer.task
        shard = work.number if shard_of is None else shard_of
        batch = self.streams_of(work.number if batch_of is None else batch_of)
        return work.trainer.update(
            work.theta_P,
            work.data if data is None else data,
            samples=samples_of(task.shards_of(work.data)[shard], steps=task.size_of(work.data).steps),
            streams=Streams(
                sampling=batch.sampling, masks=batch.masks, noise=noise or self.streams_of(work.number).noise
            ),
        )

    def streams_of(self, number: int) -> Streams:
        """Return the streams that a node draws from in this round."""
        return seeded_streams(self.config.seed, self.work.round_number, number)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in each coordinate of an honest update."""
        training, privacy = self.config.training, self.config.privacy
        steps: float = training.local_steps**0.5
        return steps * training.learning_rate * privacy.noise_multiplier * privacy.clip / training.expected_batch

    def own_noise(self) -> Tensor:
        """Return the noise of an honest update, float32 (P,)."""
        drawn = self.streams_of(self.work.number).noise.standard_normal(tuple(self.work.theta_P.shape))
        return self.work.theta_P.new_tensor(self.noise_std * drawn)
