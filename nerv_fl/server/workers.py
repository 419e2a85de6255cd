"""The same measurements spread over the enclave's own processes.

Work is cut at multiples of the chunk, so a result does not depend on the number of workers. Workers belong to the
enclave: whole encoders and directions enter them, and they end with their parent.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any, Final

import numpy as np

from nerv_fl.arrays import FloatArray, IntArray
from nerv_fl.errors import CheckpointError
from nerv_fl.models.evaluate import SampleMeasures
from nerv_fl.server.utility import Pools, PoolSettings
from nerv_fl.strategy.aggregate import Vector

CHUNKS_PER_TASK: Final = 4

_pools: list[Pools] = []
"""The one `Pools` of a worker process."""


class PooledPools(Pools):
    """`Pools` whose expensive calls run in worker processes.

    Args:
        settings: Pools and model.
        num_workers: Processes.
    """

    def __init__(self, settings: PoolSettings, *, num_workers: int) -> None:
        super().__init__(settings)
        self._task_size = CHUNKS_PER_TASK * settings.config.enclave.chunk
        self._executor = ProcessPoolExecutor(
            num_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(settings,),
        )

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[SampleMeasures]:
        """Measure each candidate on the same samples under the same masks."""
        blocks = self._blocks(sample_ids)
        futures = [[self._submit(_measure, theta_P, pool, block) for block in blocks] for theta_P in candidates]
        return [_join([_result(future) for future in row]) for row in futures]

    def gradient_products(
        self, theta_P: Vector, pool: str, sample_ids: IntArray, *, directions_NP: Vector
    ) -> FloatArray:
        """Return minus <grad of sample k's loss, direction i>, float64 (K, N)."""
        futures = [
            self._submit(_products, theta_P, pool, block, directions_NP=directions_NP)
            for block in self._blocks(sample_ids)
        ]
        return np.concatenate([_result(future) for future in futures])

    def close(self) -> None:
        """End the workers and close the ledgers."""
        self._executor.shutdown(cancel_futures=True)
        super().close()

    def _blocks(self, sample_ids: IntArray) -> list[IntArray]:
        return np.split(sample_ids, range(self._task_size, len(sample_ids), self._task_size))

    def _submit(self, task: Callable[..., Any], *arguments: object, **keywords: object) -> Future[Any]:
        return self._executor.submit(task, *arguments, **keywords)


def make_pools(settings: PoolSettings) -> Pools | PooledPools:
    """Return pools that use `enclave.workers` processes, this one alone if that is 1."""
    workers = settings.config.enclave.workers
    return Pools(settings) if workers == 1 else PooledPools(settings, num_workers=workers)


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise CheckpointError("a worker process of the enclave died; --resume goes on from the last round") from error


def _join(parts: list[SampleMeasures]) -> SampleMeasures:
    return SampleMeasures(
        loss_B=np.concatenate([part.loss_B for part in parts]),
        drift_B=np.concatenate([part.drift_B for part in parts]),
        delta_B=np.concatenate([part.delta_B for part in parts]),
        masked_ce_B=np.concatenate([part.masked_ce_B for part in parts]),
        residual_BD=np.concatenate([part.residual_BD for part in parts]),
        live_BD=np.concatenate([part.live_BD for part in parts]),
        table_AD=parts[0].table_AD,
    )


def _start_worker(settings: PoolSettings) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _pools.append(Pools(settings))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(theta_P: Vector, pool: str, sample_ids: IntArray) -> SampleMeasures:
    return _pools[0].measure_one(theta_P, pool, sample_ids)


def _products(theta_P: Vector, pool: str, sample_ids: IntArray, *, directions_NP: Vector) -> FloatArray:
    return _pools[0].gradient_products(theta_P, pool, sample_ids, directions_NP=directions_NP)
