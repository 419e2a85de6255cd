"""The report's verdicts and the figures, from measures made up to reach every target, or to miss one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nerv_fl.bootstrap.forecast import Forecasting
from nerv_fl.bootstrap.forecast_evaluate import CURVE, Measures, Thresholds
from nerv_fl.bootstrap.forecast_fit import Evaluation
from nerv_fl.bootstrap.forecast_measures import Reliability
from nerv_fl.bootstrap.forecast_plots import plot_all
from nerv_fl.bootstrap.forecast_report import report_lines
from nerv_fl.bootstrap.forecast_windows import Counts
from nerv_fl.data.load_schema import FEATURES

GROUPS = Reliability(count=np.array([9] + [0] * 8 + [1]), forecast=np.full(10, 0.5), came_true=np.full(10, 0.5))
GOOD = Measures(
    all_recall_5=0.97,
    all_false_5=0.05,
    clean_recall_5=0.95,
    clean_false_5=0.05,
    clean_recall_1=0.85,
    clean_false_1=0.01,
    found=0.9,
    lead_min=5.0,
    false_alarms_day=0.2,
    error_ratio=dict.fromkeys(FEATURES, 0.95),
    calibration_error=0.0,
    log_loss=0.02,
    reliability=GROUPS,
    curve=tuple(np.linspace(0.5, 1, len(CURVE))),
)
BASE = replace(GOOD, clean_recall_5=0.90)
START, BEST = (Evaluation(step=step, loss=1.0, overload=0.1, metrics=0.9) for step in (0, 50))


def result(**changes: Measures) -> Forecasting:
    measures = {"float32": GOOD, "int8": GOOD, "logistic, clean windows": BASE, "logistic, all windows": BASE}
    return Forecasting(
        folder=Path("run"),
        best=BEST,
        num_steps=50,
        num_parameters=1,
        size_bytes=1_110_000,
        epsilon=None,
        seconds={},
        counts=Counts(shards=1, uniform=10, uniform_ahead=1, clean=10, clean_ahead=1, episodes=1_000, shard_days=2.5),
        thresholds=dict.fromkeys(measures, Thresholds(all_5=0.5, clean_5=0.5, clean_1=0.5)),
        measures=measures | changes,
    )


def verdicts(found: Forecasting) -> dict[str, str]:
    cells = [line.strip("| ").split(" | ") for line in report_lines(found) if line.startswith("| ")]
    return {row[0]: row[-1] for row in cells[2:]}


def test_bounds_themselves_are_within_the_targets() -> None:
    with_target = {name: said for name, said in verdicts(result()).items() if said in {"yes", "missed"} or ":" in said}
    assert set(with_target.values()) == {"yes"}
    assert len(with_target) == 5 + len(FEATURES)
    assert " ".join(report_lines(result())[-4:]).count("reached") == 3


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"all_recall_5": 0.9699}, "all windows, recall at 5 %"),
        ({"clean_recall_1": 0.8499}, "clean onsets, recall at 1 %"),
        ({"found": 0.8999}, "episodes found at p > 0.92"),
        ({"false_alarms_day": 0.2001}, "false alarms a shard-day at p > 0.92"),
        ({"error_ratio": {**GOOD.error_ratio, "cpu_percent": 0.9501}}, "cpu_percent, error over no change's"),
    ],
)
def test_what_misses_its_target_says_so(changes: dict[str, float], row: str) -> None:
    assert verdicts(result(int8=replace(GOOD, **changes)))[row] == "missed: int8"  # type: ignore[arg-type]
    bad = replace(GOOD, **changes)  # type: ignore[arg-type]
    assert verdicts(result(float32=bad, int8=bad))[row] == "missed: float32, int8"


def test_what_spans_models_is_told_in_sentences() -> None:
    close = replace(GOOD, clean_recall_5=0.9101)
    lines = report_lines(result(**{"logistic, clean windows": close, "int8": replace(GOOD, found=0.8)}))
    assert lines[-4] == "Clean onsets at 5 %: 4.0 points above one minute's logistic regression (target 4: missed)."
    assert lines[-3] == "int8 loses at most 10.00 points of recall (target 1: missed)."
    assert lines[-2] == "int8 file 1,110,000 bytes, +0.9 % of 1,100,000 (target +-2 %: reached)."
    assert lines[-1].startswith("Test shards 1; 1,000 episodes, 1 clean onset windows; 10 uniform windows; 2.5 shard-d")


def test_figures_are_pictures_and_the_same_each_time(tmp_path: Path) -> None:
    pictures = [plot_all(tmp_path, history=(START, BEST), measures=result().measures, best_step=50) for _ in range(2)]
    assert [path.name for path in pictures[0]] == ["training.png", "recall.png", "reliability.png"]
    before = [path.read_bytes() for path in pictures[0]]
    plot_all(tmp_path, history=(START, BEST), measures=result().measures, best_step=50)
    assert [path.read_bytes() for path in pictures[0]] == before
    assert all(content.startswith(b"\x89PNG") and len(content) > 5_000 for content in before)
