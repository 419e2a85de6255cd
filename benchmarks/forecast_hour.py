"""The forecaster behind the protocol's signature, an hour ahead, against no change.

For windows drawn evenly from the test shards: mean absolute error of tps, queue and cpu at each of the 12 marks over
that of the window's last minute, and how often overload follows within ten minutes of a mark, where its ``confidence``
is above 0.5 and where it is not. Once as it is exported, the first mark repeated, and once played on for the hour.

python -m benchmarks.forecast_hour FORECASTER LOAD [WINDOWS]

Shapes: N windows, K = 12 marks, R = 8 metrics given, M = 3 metrics answered.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import print_setting, print_table
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import FEATURES, HORIZON
from nerv_fl.models.export.protocol_forecaster import ANSWERS, MARKS, MINUTES, RUST_METRICS, RustForecaster
from nerv_fl.models.forecaster import WINDOW
from nerv_fl.models.forecaster_files import load_forecaster
from nerv_fl.rng import stream

HOUR = MARKS * MINUTES
ANSWERED = ("tps", "queue_size", "cpu_percent")
THRESHOLD = 0.5
Floats = npt.NDArray[np.float32]


def main(weights: Path, data: Path, num_windows: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model, _ = load_forecaster(weights)
    answered = [FEATURES.index(name) for name in ANSWERED]
    with LoadFile(data) as load:
        rng, shards = stream(7, "forecast", "hour"), load.shards_of("test")
        shard_N = rng.choice(shards, num_windows)
        end_N = rng.integers(WINDOW - 1, load.info.steps - HOUR - HORIZON, num_windows)
        long_NTD = load.windows(shard_N, end_N + HOUR, length=WINDOW + HOUR)
        overload_NK = np.array(
            [
                [load.shard(shard).overload[end + mark + 1 : end + mark + 1 + HORIZON].any() for mark in marks()]
                for shard, end in zip(shard_N.tolist(), end_N.tolist(), strict=True)
            ]
        )
    print_setting(f"{weights.name} on {num_windows} windows of {len(shards)} test shards", packages=["torch"])
    for marks_played in (1, MARKS):
        found_NKA = _answers(RustForecaster(model, marks_played=marks_played).eval(), long_NTD[:, :WINDOW])
        print(f"{MINUTES * marks_played} minutes played on\n")
        _print_scores(found_NKA, long_NTD[:, WINDOW - 1 :, answered], overload_NK)
        print()


def _answers(rust: RustForecaster, window_NTD: Floats) -> Floats:
    given = [FEATURES.index(name) for name in RUST_METRICS]
    with torch.no_grad():
        rows = [rust(torch.from_numpy(window_TD[None][:, :, given])).numpy() for window_TD in window_NTD]
    return np.stack(rows).reshape(len(rows), MARKS, len(ANSWERS))


def _print_scores(found_NKA: Floats, metrics_NTM: Floats, overload_NK: npt.NDArray[np.bool_]) -> None:
    """Print one table; the metrics are those of the window's last minute and of the hour after it."""
    truth_NKM = metrics_NTM[:, marks()]
    error_KM = np.abs(found_NKA[:, :, [0, 2, 3]] - truth_NKM).mean(axis=0)
    still_KM = np.abs(metrics_NTM[:, :1] - truth_NKM).mean(axis=0)
    table = []
    for place, mark in enumerate(marks()):
        surer_N = found_NKA[:, place, 1] > THRESHOLD
        rates = [_rate(overload_NK[chosen, place]) for chosen in (surer_N, ~surer_N)]
        table.append([str(mark), *(f"{value:.3f}" for value in error_KM[place] / still_KM[place]), *rates])
    ratios = [f"{name}, error over no change's" for name in ANSWERED]
    print_table(["minutes", *ratios, f"overload if confidence > {THRESHOLD}", "otherwise"], table)


def marks() -> list[int]:
    """Return the minutes of the marks: 5, 10 ... 60."""
    return list(range(MINUTES, HOUR + 1, MINUTES))


def _rate(overload_N: npt.NDArray[np.bool_]) -> str:
    return f"{100 * overload_N.mean():.0f} % of {len(overload_N)}" if len(overload_N) else "none"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 400)
