"""Numbers of a task that are not finite end a run in one line that names them; no record holds one."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from nerv_fl.enclave.evaluation import Pools
from nerv_fl.errors import TaskError
from nerv_fl.server.monitor import Monitor
from nerv_fl.tasks.metrics import Means, Measured, mean_of
from nerv_fl.types import FloatArray, IntArray, Vector
from tests.federation.tiny_run import tiny_config

THETA_P = np.zeros(2, dtype=np.float32)
BAD = [np.nan, np.inf, -np.inf]


class StubPools:
    """Pools of 16 chains whose samples have given losses and one more measure."""

    def __init__(self, loss_B: FloatArray, *, odd: float = 1.0, trivial: float = 1.0) -> None:
        self._measured = Measured(loss_B=loss_B, columns={"odd": np.full(len(loss_B), odd)})
        self._trivial = trivial
        self.task = SimpleNamespace(standing=lambda summary, **_: summary)

    def num_steps(self) -> int:
        return 1

    def num_chains(self, _pool: str) -> int:
        return 16

    def trivial(self, _pool: str, _ids: IntArray) -> Mapping[str, float]:
        return {"loss": self._trivial}

    def measure(self, thetas: Sequence[Vector], _pool: str, _ids: IntArray) -> list[Measured]:
        return [self._measured for _ in thetas]

    def summarise(self, measures: Measured) -> Means:
        return mean_of(measures)

    def bound(self, *_: object, **__: object) -> None:
        return None


def monitor(pools: StubPools) -> Monitor:
    return Monitor(cast(Pools, pools), config=tiny_config())


def losses(bad: float) -> FloatArray:
    return np.array([0.5, bad] + 14 * [0.25])


@pytest.mark.parametrize("bad", BAD)
def test_losses_of_some_samples(bad: float) -> None:
    expected = (
        rf"^the loss of 1 of 16 samples of the certify pool is not finite, such as {bad}, expected finite ones: "
        r"correct the task's losses, its weights or its data$"
    )
    with pytest.raises(TaskError, match=expected):
        monitor(StubPools(losses(bad))).standing(THETA_P)


@pytest.mark.parametrize("bad", BAD)
def test_losses_in_the_final_pool(bad: float) -> None:
    with pytest.raises(
        TaskError, match=rf"^the loss of 1 of 16 samples of the final pool is not finite, such as {bad},"
    ):
        monitor(StubPools(losses(bad))).final(THETA_P, THETA_P)


@pytest.mark.parametrize("bad", BAD)
def test_a_further_measure(bad: float) -> None:
    with pytest.raises(
        TaskError, match=rf"^measure 'odd' of the model is {bad} on the certify pool, expected a finite"
    ):
        monitor(StubPools(losses(0.5), odd=bad)).standing(THETA_P)


@pytest.mark.parametrize("bad", BAD)
def test_a_trivial_model(bad: float) -> None:
    with pytest.raises(TaskError, match=rf"^measure 'loss' of a trivial model is {bad} on the certify pool, expected"):
        monitor(StubPools(losses(0.5), trivial=bad))


def test_finite_numbers_pass() -> None:
    found = monitor(StubPools(losses(0.5)))
    assert found.standing(THETA_P).loss == pytest.approx(4.5 / 16)
    assert found.final(THETA_P, THETA_P).difference == 0
