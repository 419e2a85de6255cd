"""The same measurements spread over the enclave's own processes.

Work is cut at multiples of the chunk, so a result does not depend on the number of workers. Workers belong to the
enclave: whole encoders enter them, measures and gradients leave them, and they end with their parent. What was lost
with a worker that died is measured once more, by new ones.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np

from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.errors import CheckpointError, NervError
from nerv_fl.processes import end_with_parent, spawn_context
from nerv_fl.tasks.metrics import Measures
from nerv_fl.tasks.user_code import user_error
from nerv_fl.types import FloatArray, IntArray, Vector

CHUNKS_PER_TASK: Final = 4

log = logging.getLogger(__name__)

_pools: list[Pools] = []
"""The one `Pools` of a worker process."""

_failures: list[Exception] = []
"""What kept a worker from opening its pools; an initializer that raised would end it without a reason."""


class PooledPools(Pools):
    """`Pools` whose expensive calls run in worker processes.

    Args:
        settings: Pools and model.
        num_workers: Processes.
    """

    def __init__(self, settings: PoolSettings, *, num_workers: int) -> None:
        super().__init__(settings)
        self._num_workers = num_workers
        self._task_size = CHUNKS_PER_TASK * settings.config.enclave.chunk
        self._executor = _start_workers(settings, num_workers)

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[Measures]:
        """Measure each candidate on the same samples."""
        blocks = self._blocks(sample_ids)
        results = [[self._submit(_measure, theta_P, pool, block) for block in blocks] for theta_P in candidates]
        return [_join([result() for result in row]) for row in results]

    def sample_gradients(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> Iterator[Vector]:
        """Yield each sample's gradient, a chunk at a time, float32 (n, P); no more chunks are ahead than workers."""
        chunk = self._settings.config.enclave.chunk
        waiting: deque[Callable[[], Vector]] = deque()
        for start in range(0, len(sample_ids), chunk):
            waiting.append(self._submit(_gradients, theta_P, pool, sample_ids[start : start + chunk]))
            if len(waiting) > self._num_workers:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def mean_gradients(self, thetas: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[FloatArray]:
        """Return the gradient of the samples' mean loss at each point, float64 (P,)."""
        results = [self._submit(_mean_gradient, theta_P, pool, sample_ids) for theta_P in thetas]
        return [result() for result in results]

    def close(self) -> None:
        """End the workers and close the ledgers."""
        self._executor.shutdown(cancel_futures=True)
        super().close()

    def _blocks(self, sample_ids: IntArray) -> list[IntArray]:
        return np.split(sample_ids, range(self._task_size, len(sample_ids), self._task_size))

    def _submit(self, task: Callable[..., Any], *arguments: object) -> Callable[[], Any]:
        """Start a task, and return what waits for its result: a task that was lost with its worker runs once more."""
        call = partial(_call, task, *arguments)
        executor = self._executor
        try:
            future = executor.submit(call)
        except BrokenExecutor:
            return partial(self._repeat, call, executor)

        def result() -> Any:
            try:
                return future.result()
            except BrokenExecutor:
                return self._repeat(call, executor)

        return result

    def _repeat(self, call: Callable[[], Any], broken: ProcessPoolExecutor) -> Any:
        if self._executor is broken:
            log.warning("a worker process of the enclave died; new ones take over")
            self._executor = _start_workers(self._settings, self._num_workers)
        try:
            return self._executor.submit(call).result()
        except BrokenExecutor as error:
            raise CheckpointError(
                "worker processes of the enclave died twice in one task; --resume goes on from the last round"
            ) from error


def make_pools(settings: PoolSettings) -> Pools | PooledPools:
    """Return pools that use `enclave.workers` processes, this one alone if that is 1."""
    workers = settings.config.enclave.workers
    return Pools(settings) if workers == 1 else PooledPools(settings, num_workers=workers)


def _start_workers(settings: PoolSettings, num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        num_workers,
        mp_context=spawn_context(),
        initializer=_start_worker,
        initargs=(settings,),
    )


def _join(parts: Sequence[Measures]) -> Measures:
    return type(parts[0]).joined(parts)


def _start_worker(settings: PoolSettings) -> None:
    end_with_parent()
    try:
        _pools.append(Pools(settings))
    except Exception as error:  # noqa: BLE001 (raised again by the first call)
        _failures.append(user_error(error) or error)


def _call(task: Callable[..., Any], *arguments: object) -> Any:
    """Call a task in a worker; its traceback does not travel, so what the user's code raised is named here.

    Raises:
        TaskError: If the user's code raised an error.
    """
    if _failures:
        raise _failures[0]
    try:
        return task(*arguments)
    except Exception as error:
        if isinstance(error, NervError):
            raise
        raise user_error(error) or error from None


def _measure(theta_P: Vector, pool: str, sample_ids: IntArray) -> Measures:
    return _pools[0].measure_one(theta_P, pool, sample_ids)


def _gradients(theta_P: Vector, pool: str, sample_ids: IntArray) -> Vector:
    return np.concatenate(list(_pools[0].sample_gradients(theta_P, pool, sample_ids)))


def _mean_gradient(theta_P: Vector, pool: str, sample_ids: IntArray) -> FloatArray:
    return _pools[0].mean_gradient(theta_P, pool, sample_ids)
