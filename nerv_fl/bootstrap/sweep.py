"""Which learning rate? Short trainings over a range of them, all from the same start on the same batches.

A short training favours rates that are somewhat too high for a long one: take the pick, or half of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nerv_fl.bootstrap.public import PublicData
from nerv_fl.bootstrap.training import Pretraining
from nerv_fl.config import BootstrapConfig, RunConfig
from nerv_fl.data import open_ledger
from nerv_fl.models.presets import get_preset
from nerv_fl.threads import use_one_thread
from nerv_fl.validation import in_range

OnRate = Callable[[int, int], None]
"""Called with (rates tried, rates)."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A short training: its rate, and the held-out loss, masked cross-entropy (nats) and relative drift at its best.

    `stopped` says why it ended early, or is empty.
    """

    learning_rate: float
    loss: float
    masked_ce: float
    drift_relative: float
    stopped: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All trials in the order of their rates, and the rate of the lowest held-out loss.

    `at_the_end` says that the pick is the lowest or highest rate tried: the range is too narrow.
    """

    trials: tuple[Trial, ...]
    pick: float
    at_the_end: bool


def sweep_learning_rates(
    config: RunConfig, ledger_path: Path, *, low: float, high: float, num_rates: int, progress: OnRate | None = None
) -> Sweep:
    """Train for `bootstrap.steps` steps at each of `num_rates` rates, evenly spaced in their logarithm.

    Args:
        config: The run's settings; `bootstrap.learning_rate` is replaced.
        ledger_path: Ledger file of the `genesis` profile.
        low: Lowest rate.
        high: Highest rate.
        num_rates: How many, 2 or more.
        progress: Told of each rate that was tried.

    Raises:
        ConfigError: If the range is empty or leaves that of `bootstrap.learning_rate`.
        DataError: If the ledger is not the model's, or too small.
    """
    in_range("lowest learning rate", low, low=0, high=high, open_low=True)
    in_range("number of learning rates", num_rates, low=2, high=100)
    rates = [float(rate) for rate in np.geomspace(low, high, num_rates)]
    settings = [replace(config.bootstrap, learning_rate=rate) for rate in rates]
    use_one_thread()
    trials = []
    with open_ledger(ledger_path) as ledger:
        data = PublicData(ledger, config=config, preset=get_preset(config.model.preset))
        for done, setting in enumerate(settings, 1):
            trials.append(_trial(setting, config=config, data=data))
            if progress:
                progress(done, num_rates)
    losses = [trial.loss for trial in trials]
    best = int(np.argmin(losses))
    return Sweep(trials=tuple(trials), pick=rates[best], at_the_end=best in (0, num_rates - 1))


def _trial(settings: BootstrapConfig, *, config: RunConfig, data: PublicData) -> Trial:
    run = Pretraining(replace(config, bootstrap=settings), data, preset=get_preset(config.model.preset))
    while not run.is_over:
        run.advance()
    best = run.standing.best.measures
    return Trial(
        learning_rate=settings.learning_rate,
        loss=best.loss,
        masked_ce=best.masked_ce,
        drift_relative=best.drift_relative,
        stopped=run.standing.stopped,
    )
