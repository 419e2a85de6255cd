"""The benchmark opens what it seals, and how many threads do so changes no bit."""

from dataclasses import replace

import numpy as np

from benchmarks.bench_opening import Cohort, decide
from nerv_fl.config import RunConfig
from nerv_fl.types import Vector


def test_the_aggregate_of_a_cohort_does_not_depend_on_threads_or_memory() -> None:
    cohort, config = Cohort(12), RunConfig()
    given = cohort.first(12)

    def aggregate(workers: int, memory_mb: float) -> Vector:
        enclave = replace(config.enclave, workers=workers, memory_mb=memory_mb)
        return decide(cohort, given, config=replace(config, enclave=enclave))

    alone_P = aggregate(1, 1024.0)
    assert np.array_equal(aggregate(3, 0.5), alone_P)
    assert abs(float(alone_P @ cohort.common_P) / float(cohort.common_P @ cohort.common_P) - 1) < 0.1
