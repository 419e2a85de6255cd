"""Whether a finer calibration than Platt's finds more overloads at p > 0.92, fitted on validation shards all the same.

The forecaster's probabilities as they are (Platt: slope and intercept on the logit), then mapped by beta calibration
(three numbers) and by isotonic regression (any rising steps). Each is fitted on the uniform windows of validation
shards, and judged on test shards.

python -m benchmarks.forecast_calibration FORECASTER LOAD

Shapes: N windows.

Source: Kull, Silva Filho and Flach, "Beta calibration", 2017; Zadrozny and Elkan, "Transforming classifier scores into
accurate multiclass probability estimates", 2002.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from benchmarks.measure import print_setting, print_table
from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_evaluate import forecast, torch_predict
from nerv_fl.bootstrap.forecast_measures import ALARM, Scores, episodes, leads, log_loss, reliability
from nerv_fl.bootstrap.forecast_windows import Amounts, Examination
from nerv_fl.data.load import LoadFile
from nerv_fl.models.forecaster_files import load_forecaster
from nerv_fl.threads import use_one_thread
from nerv_fl.types import BoolArray, FloatArray

SEED = 7
Map = Callable[[Scores], FloatArray]


class Seen(NamedTuple):
    """An examination's windows and a model's probabilities: of those drawn evenly, and of those before an onset."""

    asked: Examination
    uniform_N: Scores
    clean_N: Scores


def main(weights: Path, path: Path) -> None:
    """Print the table."""
    use_one_thread()
    predict = torch_predict(load_forecaster(weights)[0].eval())
    with LoadFile(path) as load:
        series = {split: LoadSeries.read(load, split) for split in ("validation", "test")}
    asked = {name: Examination.of(item, amounts=Amounts(clean=1, days=1), seed=SEED) for name, item in series.items()}
    fitted_on = asked["validation"]
    p_N = forecast(predict, fitted_on.series, fitted_on.uniform)[1]
    maps = calibrations(p_N, fitted_on.uniform.of(fitted_on.series.ahead))
    test = asked["test"]
    seen = Seen(test, *(forecast(predict, test.series, places)[1] for places in (test.uniform, test.clean)))
    print_setting(f"{weights.name}, calibrated on {len(p_N):,} windows of validation shards", packages=("torch",))
    heads = ["calibration", f"found at p > {ALARM:g}", "calibration error", "log loss", "above, outside overload"]
    print_table(heads, [row(name, item, seen) for name, item in maps.items()])


def calibrations(p_N: Scores, ahead_N: BoolArray) -> dict[str, Map]:
    """Return the maps of probabilities, by name."""
    beta = LogisticRegression(C=np.inf, max_iter=5000, tol=1e-10).fit(_logs(p_N), ahead_N)
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p_N, ahead_N)
    return {
        "Platt": lambda found_N: found_N.astype(np.float64),
        "beta": lambda found_N: beta.predict_proba(_logs(found_N))[:, 1],
        "isotonic": isotonic.predict,
    }


def row(name: str, mapped: Map, seen: Seen) -> list[str]:
    """Return a row of the table."""
    test, p_N = seen.asked, mapped(seen.uniform_N)
    ahead_N, overload_N = (test.uniform.of(values) for values in (test.series.ahead, test.series.overload))
    sure_N = (p_N > ALARM) & ~overload_N
    figures = [found(test, mapped(seen.clean_N)), reliability(p_N, ahead_N).error, log_loss(p_N, ahead_N)]
    came_true = f"{ahead_N[sure_N].mean():.0%} of {sure_N.sum()} came true, said {p_N[sure_N].mean():.0%}"
    return [name, f"{figures[0]:.1%}", f"{figures[1]:.4f}", f"{figures[2]:.4f}", came_true]


def found(test: Examination, p_N: FloatArray) -> float:
    """Return the part of the episodes with an alarm in the 10 minutes before."""
    onset = test.series.usable & test.series.onset
    alarm = np.zeros_like(onset)
    alarm[test.clean.shards, test.clean.ends] = p_N > ALARM
    return float((leads(alarm, episodes(onset)) > 0).mean())


def _logs(p_N: Scores) -> npt.NDArray[np.float64]:
    """Return ln p and -ln(1 - p), float64 [N, 2]."""
    kept = np.clip(p_N.astype(np.float64), 1e-9, 1.0 - 1e-9)
    return np.stack([np.log(kept), -np.log1p(-kept)], axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
