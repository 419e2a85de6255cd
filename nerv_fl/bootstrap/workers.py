"""Who does the work of a pretraining: this process, or the workers of a Ray cluster in step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nerv_fl.bootstrap.public import PublicData
from nerv_fl.bootstrap.resume import restore, snapshot
from nerv_fl.bootstrap.training import Pretraining, Standing
from nerv_fl.config import Flat, RunConfig
from nerv_fl.models.evaluate import EncoderMeasures
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import encoder_bytes


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What the workers are to train.

    Attributes:
        config: The run's settings.
        ledger_path: Ledger file; on a cluster the path must mean the same file on every machine.
        begun: All that the bits of the training depend on.
        start: Weights to begin with, or None; the path as the ledger's.
    """

    config: RunConfig
    ledger_path: Path
    begun: Flat
    start: Path | None


class Worker(Protocol):
    """Who does the work: this process, or a cluster's workers in step."""

    def standing(self) -> Standing:
        """Return how the training stands."""

    def advance(self, num_steps: int) -> Standing:
        """Take up to so many steps and return how it stands."""

    def snapshot(self) -> bytes:
        """Return all that the next step depends on."""

    def restore(self, data: bytes, *, source: Path) -> None:
        """Go on from a snapshot."""

    def finish(self, facts: dict[str, object]) -> tuple[bytes, EncoderMeasures]:
        """Return the file of the best weights, with these facts in it, and their measures."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster to train on: its address, or `local` for one on this machine, and how many workers."""

    address: str
    workers: int


class LocalWorker:
    """A training in this process.

    Args:
        run: The training.
        begun: All that its bits depend on.
    """

    def __init__(self, run: Pretraining, *, begun: Flat) -> None:
        self._run, self._begun = run, begun

    def standing(self) -> Standing:
        """Return how the training stands."""
        return self._run.standing

    def advance(self, num_steps: int) -> Standing:
        """Take up to so many steps and return how it stands."""
        for _ in range(num_steps):
            if self._run.is_over:
                break
            self._run.advance()
        return self._run.standing

    def snapshot(self) -> bytes:
        """Return all that the next step depends on."""
        return snapshot(self._run, begun=self._begun)

    def restore(self, data: bytes, *, source: Path) -> None:
        """Go on from a snapshot."""
        restore(self._run, data, source=source)

    def finish(self, facts: dict[str, object]) -> tuple[bytes, EncoderMeasures]:
        """Return the file of the best weights, with these facts in it, and their measures."""
        measures = self._run.finish()
        return encoder_bytes(self._run.encoder, facts=facts), measures


@contextmanager
def working(assignment: Assignment, data: PublicData, *, cluster: Cluster | None) -> Iterator[Worker]:
    """Start whoever does the work: this process on the data it has open, or the workers of a cluster."""
    if cluster is None:
        config = assignment.config
        preset = get_preset(config.model.preset)
        yield LocalWorker(Pretraining(config, data, preset=preset, start=assignment.start), begun=assignment.begun)
        return
    from nerv_fl.bootstrap.cluster import on_ray  # noqa: PLC0415 (seconds of imports)

    with on_ray(assignment, cluster) as workers:
        yield workers
