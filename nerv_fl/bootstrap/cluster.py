"""A pretraining whose batches are shared by the workers of a Ray cluster: one actor each, gradients added up by gloo.

Every worker holds the whole model, draws the same batches and takes its share of each; the sum of the gradients is the
same bits on all of them, and so are the weights. Checkpoints go through the process that asked: only it needs a disk.

Plain actors, not Ray Train: its trainer needs pyarrow, which only development installs here, and opens its
process group at the machine's outward address even where Ray itself was held to loopback.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError
from torch import Tensor
from torch import distributed as dist

from nerv_fl.bootstrap.gradient import Team
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.bootstrap.training import Pretraining, Standing
from nerv_fl.bootstrap.workers import Assignment, Cluster, LocalWorker
from nerv_fl.data import open_ledger
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.models.evaluate import EncoderMeasures
from nerv_fl.models.presets import get_preset
from nerv_fl.ray_cluster import LOOPBACK, start_ray
from nerv_fl.threads import use_one_thread

PATIENCE: Final = timedelta(minutes=30)
"""How long a worker waits for the slowest in one sum."""


@contextmanager
def on_ray(assignment: Assignment, cluster: Cluster) -> Iterator["RayWorkers"]:
    """Start the workers and give them as one.

    Args:
        assignment: What to train.
        cluster: Address and number of workers, each with one CPU (and one GPU if `bootstrap.device` is "cuda").

    Raises:
        ConfigError: If there are more workers than samples in a batch, or than the cluster has processors.
        NervError: What stopped a worker.
        ConfigError: If there is no cluster at the address.
    """
    settings = assignment.config.bootstrap
    if not 1 <= cluster.workers <= settings.batch_size:
        raise ConfigError(f"workers is {cluster.workers}, expected 1 to bootstrap.batch_size = {settings.batch_size}")
    start_ray(cluster.address, num_cpus=cluster.workers)
    try:
        what = "GPU" if settings.device == "cuda" else "CPU"
        found = int(ray.cluster_resources().get(what, 0))  # type: ignore[no-untyped-call]
        if found < cluster.workers:
            raise ConfigError(f"workers is {cluster.workers}, expected at most the cluster's {found} {what}s")
        yield RayWorkers(assignment, num_workers=cluster.workers)
    finally:
        ray.shutdown()


class RayWorkers:
    """The workers of a training, all in step; they answer as one.

    Args:
        assignment: What to train.
        num_workers: How many.
    """

    def __init__(self, assignment: Assignment, *, num_workers: int) -> None:
        gpus = 1 if assignment.config.bootstrap.device == "cuda" else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(_Actor)
        self._actors: list[Any] = [remote.remote(rank, num_workers) for rank in range(num_workers)]
        meeting = _got(self._actors[0].meeting.remote())
        start = assignment.start.resolve() if assignment.start else None
        self._all("begin", meeting, replace(assignment, ledger_path=assignment.ledger_path.resolve(), start=start))

    def standing(self) -> Standing:
        """Return how the training stands."""
        standing: Standing = self._all("call", "standing")
        return standing

    def advance(self, num_steps: int) -> Standing:
        """Take up to so many steps and return how it stands."""
        standing: Standing = self._all("call", "advance", num_steps)
        return standing

    def snapshot(self) -> bytes:
        """Return all that the next step depends on, as the first worker has it: the others' is the same."""
        data: bytes = _got(self._actors[0].call.remote("snapshot"))
        return data

    def restore(self, data: bytes, *, source: Path) -> None:
        """Go on from a snapshot, on every worker."""
        self._all("restore", ray.put(data), source)

    def finish(self, facts: dict[str, object]) -> tuple[bytes, EncoderMeasures]:
        """Return the file of the best weights, with these facts in it, and their measures.

        Raises:
            CheckpointError: If two workers' weights differ.
        """
        files = [_got(task) for task in [actor.call.remote("finish", facts) for actor in self._actors]]
        if any(file != files[0][0] for file, _ in files):
            raise CheckpointError("the workers ended with different weights, expected the same on all")
        first: tuple[bytes, EncoderMeasures] = files[0]
        return first

    def _all(self, name: str, *arguments: Any) -> Any:
        """Call every worker at once; return what the first answers."""
        answers = [_got(task) for task in [getattr(actor, name).remote(*arguments) for actor in self._actors]]
        return answers[0]


class _Actor:
    def __init__(self, rank: int, size: int) -> None:
        use_one_thread()
        self._rank, self._size = rank, size
        self._worker: LocalWorker | None = None

    def meeting(self) -> str:
        """Return where the workers meet: a free port at this worker's address in the cluster."""
        address = _own_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            return f"tcp://{address}:{probe.getsockname()[1]}"

    def begin(self, meeting: str, assignment: Assignment) -> Exception | None:
        """Meet the others and build the training; return what stopped it."""
        if f"//{LOOPBACK}:" in meeting:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=meeting, rank=self._rank, world_size=self._size, timeout=PATIENCE)
        team = Team(rank=self._rank, size=self._size, add_up=_add_up)
        config, start = assignment.config, assignment.start
        preset = get_preset(config.model.preset)
        try:
            data = PublicData(open_ledger(assignment.ledger_path), config=config, preset=preset)
            run = Pretraining(config, data, preset=preset, team=team, start=start)
        except (ValueError, RuntimeError, OSError) as error:
            return error
        self._worker = LocalWorker(run, begun=assignment.begun)
        return None

    def restore(self, data: bytes, source: Path) -> Exception | None:
        assert self._worker is not None
        try:
            self._worker.restore(data, source=source)
        except (ValueError, RuntimeError, OSError) as error:
            return error
        return None

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what a method of the worker returns, or what stopped it: Ray would wrap what is raised."""
        try:
            return getattr(self._worker, name)(*arguments)
        except (ValueError, RuntimeError, OSError) as error:
            return error


def _add_up(vector_P: Tensor) -> Tensor:
    dist.all_reduce(vector_P)
    return vector_P


def _got(task: Any) -> Any:
    try:
        answer = ray.get(task)
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"a worker was lost ({reason}), expected all to the end: --resume goes on") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _own_address() -> str:
    """Return the address at which the cluster knows this machine."""
    own = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next(str(node["NodeManagerAddress"]) for node in nodes if node["NodeID"] == own)
