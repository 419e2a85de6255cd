"""Worker processes measure what one process measures, bit for bit, and are replaced where they die."""

import os
import signal
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest

from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.parallel_evaluation import CHUNKS_PER_TASK, PooledPools, make_pools
from nerv_fl.errors import CheckpointError
from nerv_fl.models.evaluate import SampleMeasures
from nerv_fl.server.run_folder import POOLS
from nerv_fl.types import IntArray, Vector
from nerv_fl.vectors import Rows
from tests.federation.pretrained import Pretrained, pretrained_run

IDS = np.arange(0, 128, 3, dtype=np.int64)


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrained_run()


def settings(pretrained: Pretrained, *, workers: int) -> PoolSettings:
    """Return settings whose chunk is so small that the work is cut into several tasks."""
    config = pretrained.config
    enclave = replace(config.enclave, workers=workers, chunk=4)
    paths = {name: pretrained.folder.data(name) for name in POOLS}
    return PoolSettings(config=replace(config, enclave=enclave), paths=paths, constants=pretrained.constants)


@pytest.fixture(scope="module")
def alone(pretrained: Pretrained) -> Iterator[Pools]:
    with make_pools(settings(pretrained, workers=1)) as pools:
        yield pools


@pytest.fixture(scope="module")
def spread(pretrained: Pretrained) -> Iterator[Pools]:
    with make_pools(settings(pretrained, workers=2)) as pools:
        yield pools


def same(one: SampleMeasures, other: SampleMeasures) -> bool:
    """Return whether two measurements agree in every bit."""
    return all(np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(SampleMeasures))


def test_one_worker_needs_no_process(alone: Pools, spread: Pools) -> None:
    assert type(alone) is Pools
    assert type(spread) is PooledPools


def test_the_work_is_cut_at_multiples_of_the_chunk(spread: PooledPools) -> None:
    blocks = spread._blocks(IDS)

    assert [len(block) for block in blocks] == [16, 16, 11]
    assert CHUNKS_PER_TASK * 4 == 16
    assert np.array_equal(np.concatenate(blocks), IDS)


def test_measures_agree_bit_for_bit(alone: Pools, spread: Pools, pretrained: Pretrained) -> None:
    candidates = [pretrained.weights, pretrained.weights + np.float32(1e-3)]

    for one, other in zip(
        alone.measure(candidates, "search", IDS), spread.measure(candidates, "search", IDS), strict=True
    ):
        assert isinstance(one, SampleMeasures)
        assert isinstance(other, SampleMeasures)
        assert same(one, other)


def test_products_agree_bit_for_bit(alone: Pools, spread: Pools, pretrained: Pretrained) -> None:
    directions_NP = np.stack(list(pretrained.honest_updates.values())[:3])

    one, other = (
        pools.gradient_products(pretrained.weights, "search", IDS, directions=Rows.of(directions_NP))
        for pools in (alone, spread)
    )

    assert one.shape == (len(IDS), 3)
    assert np.array_equal(one, other)


def test_mean_gradients_agree_bit_for_bit(alone: Pools, spread: Pools, pretrained: Pretrained) -> None:
    thetas = [pretrained.weights, pretrained.weights + np.float32(1e-3)]

    one, other = (pools.mean_gradients(thetas, "search", IDS) for pools in (alone, spread))

    assert np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


def test_the_bound_agrees(alone: Pools, spread: Pools, pretrained: Pretrained) -> None:
    one, other = (pools.bound(pretrained.weights, "certify", IDS, bound=1e-9) for pools in (alone, spread))

    assert one == other


def test_a_workers_error_reaches_the_caller(spread: Pools, pretrained: Pretrained) -> None:
    with pytest.raises(ValueError, match=r"^sample is 999, expected 0 to 127 \(of "):
        spread.measure([pretrained.weights], "search", np.array([999]))


# --- Workers that die -------------------------------------------------------------------------------------------------


def kill_worker(_theta_P: Vector, _pool: str, _sample_ids: IntArray) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_is_lost_with_a_worker_is_measured_by_new_ones(
    alone: Pools, pretrained: Pretrained, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed while idle: the pool finds out when it is asked next, at the submission or at the result."""
    with make_pools(settings(pretrained, workers=2)) as pools:
        assert isinstance(pools, PooledPools)
        pools.measure([pretrained.weights], "search", IDS)
        for victim in list(pools._executor._processes):
            os.kill(victim, signal.SIGKILL)

        (measured,) = pools.measure([pretrained.weights], "search", IDS)
        gradients = list(pools.sample_gradients(pretrained.weights, "search", IDS[:8]))

    (expected,) = alone.measure([pretrained.weights], "search", IDS)
    assert isinstance(measured, SampleMeasures)
    assert isinstance(expected, SampleMeasures)
    assert same(measured, expected)
    assert len(np.concatenate(gradients)) == 8
    assert caplog.text.count("a worker process of the enclave died; new ones take over") == 1


def test_a_task_that_kills_its_workers_twice_stops_the_run(pretrained: Pretrained) -> None:
    with make_pools(settings(pretrained, workers=2)) as pools:
        assert isinstance(pools, PooledPools)
        lost = pools._submit(kill_worker, pretrained.weights, "search", IDS)
        with pytest.raises(CheckpointError, match=r"^worker processes of the enclave died twice in one task; --resume"):
            lost()
