"""The learning rate of the lowest held-out loss, from the same start on the same batches."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.bootstrap.sweep import sweep_learning_rates
from nerv_fl.errors import ConfigError
from tests.bootstrap.tiny import SETTINGS, make_config, run

pytestmark = pytest.mark.usefixtures("tiny_preset")


def test_pick_is_the_rate_whose_training_is_best(ledger_path: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = sweep_learning_rates(
        make_config(), ledger_path, low=1e-4, high=1.0, num_rates=5, progress=lambda *row: told.append(row)
    )
    assert [trial.learning_rate for trial in found.trials] == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1])
    alone = run(ledger_path, tmp_path, replace(SETTINGS, learning_rate=found.trials[2].learning_rate))
    best = min(alone.curve, key=lambda point: point.measures.loss).measures
    assert found.trials[2].loss == best.loss
    assert found.trials[2].masked_ce == best.masked_ce
    assert found.pick == min(found.trials, key=lambda trial: trial.loss).learning_rate
    assert not found.at_the_end
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_pick_at_the_end_of_the_range_is_marked(ledger_path: Path) -> None:
    found = sweep_learning_rates(make_config(), ledger_path, low=1e-5, high=1e-3, num_rates=3)
    assert found.pick == pytest.approx(1e-3)
    assert found.at_the_end


@pytest.mark.parametrize(
    ("low", "high", "num_rates", "message"),
    [
        (0.0, 0.1, 3, "lowest learning rate is 0.0, expected a number in (0, 0.1]"),
        (0.2, 0.1, 3, "lowest learning rate is 0.2, expected a number in (0, 0.1]"),
        (0.1, 20.0, 3, "bootstrap.learning_rate is 20.0, expected a number in (0, 10]"),
        (0.01, 0.1, 1, "number of learning rates is 1, expected a number in [2, 100]"),
    ],
)
def test_range_that_cannot_be_is_refused(
    ledger_path: Path, *, low: float, high: float, num_rates: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        sweep_learning_rates(make_config(), ledger_path, low=low, high=high, num_rates=num_rates)
