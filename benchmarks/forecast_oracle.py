"""What one who sees the hidden state finds before overload at p > 0.92: the best that the target allows.

The oracle goes on from the state that made a minute, many times, and says in which part overload came within 10
minutes. It is asked about the minutes that `nerv-fl bootstrap forecaster` asks its models about: all before a clean
onset, and every minute of the same watched days.

python -m benchmarks.forecast_oracle LOAD [DAYS]

Shapes: N windows.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import print_setting
from datagen.sharding.kernel import hidden_states, overload_probability
from datagen.sharding.shard import draw_parameters
from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_evaluate import Answers, Thresholds, measure
from nerv_fl.bootstrap.forecast_measures import ALARM
from nerv_fl.bootstrap.forecast_windows import Amounts, Examination, Places, count
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import HORIZON
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray

SEED = 7
ROUGH, FINE = 20, 1000
"""Continuations of every minute, and of those in which half of the first met overload."""


def main(path: Path, days: int) -> None:
    """Print what the oracle finds."""
    with LoadFile(path) as load:
        series = LoadSeries.read(load, "test")
        asked = Examination.of(series, amounts=Amounts(uniform=5000, clean=5000, days=days), seed=SEED)
        answers = Answers(
            next_ND=series.features[asked.uniform.shards, asked.uniform.ends],
            uniform=_chances(load, series, asked.uniform),
            clean=_chances(load, series, asked.clean),
            watched=_chances(load, series, asked.watched),
        )
    found = measure(answers, asked, Thresholds(all_5=ALARM, clean_5=ALARM, clean_1=ALARM))
    asked_of = count(asked)
    print_setting(f"The oracle on {asked_of.episodes:,} episodes and {days} shard-days of the test shards", packages=())
    print(
        f"episodes found at p > {ALARM:g}: {found.found:.1%}, median lead {found.lead_min:g} minutes; "
        f"false alarms a shard-day: {found.false_alarms_day:.3f}; log loss {found.log_loss:.4f} nats of "
        f"{asked_of.uniform:,} uniform windows"
    )


def _chances(load: LoadFile, series: LoadSeries, places: Places) -> FloatArray:
    """Return the probability of overload given the hidden state, of windows by shard and last minute, float64 [N]."""
    info, chances_N = load.info, np.zeros(len(places.ends))
    for place in np.unique(places.shards):
        shard, here = int(series.shards[place]), np.flatnonzero(places.shards == place)
        states = hidden_states(info.seed, shard, steps=info.steps, splits=info.splits)[places.ends[here]]
        parameters = draw_parameters(info.seed, shard, splits=info.splits)
        rng = stream(SEED, "forecast", "oracle", shard)
        rough = overload_probability(states, parameters, rng, horizon=HORIZON, repeats=ROUGH)
        close = rough >= 0.5
        rough[close] = overload_probability(states[close], parameters, rng, horizon=HORIZON, repeats=FINE)
        chances_N[here] = rough
    return chances_N


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
