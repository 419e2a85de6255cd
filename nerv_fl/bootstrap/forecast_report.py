"""The forecaster's measures beside their targets, as a table in Markdown; what misses its target says so."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from nerv_fl.bootstrap.forecast import Forecasting
from nerv_fl.bootstrap.forecast_evaluate import Measures
from nerv_fl.data.load_schema import FEATURES

MODEL: Final = "float32"
INT8: Final = "int8"
BASELINE: Final = "logistic, clean windows"
"""The better of the two on clean onsets."""
SIZE_BYTES: Final = 1_100_000
SIZE_TOLERANCE: Final = 0.02
MARGIN: Final = 0.04
INT8_LOSS: Final = 0.01


class Row(NamedTuple):
    """A measure: its name, where it is found, how it is written, and its bound if it has one."""

    name: str
    of: Callable[[Measures], float]
    written: str
    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


ROWS: Final = (
    Row("all windows, recall at 5 %", lambda found: found.all_recall_5, ".1%", least=0.97),
    Row("clean onsets, recall at 5 %", lambda found: found.clean_recall_5, ".1%", least=0.95),
    Row("clean onsets, recall at 1 %", lambda found: found.clean_recall_1, ".1%", least=0.85),
    Row("false alarms met, all windows", lambda found: found.all_false_5, ".2%"),
    Row("false alarms met, clean, for 5 %", lambda found: found.clean_false_5, ".2%"),
    Row("false alarms met, clean, for 1 %", lambda found: found.clean_false_1, ".2%"),
    Row("episodes found at p > 0.92", lambda found: found.found, ".1%", least=0.90),
    Row("false alarms a shard-day at p > 0.92", lambda found: found.false_alarms_day, ".3f", most=0.2),
    Row("median lead, minutes", lambda found: found.lead_min, "g"),
    Row("calibration error", lambda found: found.calibration_error, ".4f"),
    Row("log loss, nats", lambda found: found.log_loss, ".4f"),
    *(
        Row(f"{name}, error over no change's", lambda found, name=name: found.error_ratio[name], ".3f", most=0.95)  # type: ignore[misc]
        for name in FEATURES
    ),
)


def report_lines(result: Forecasting) -> list[str]:
    """Return the table: every measure of every model, its target, and whether float32 and int8 reach it."""
    names = list(result.measures)
    lines = [_line("measure", *names, "target", "reached"), _line("---", *["---:"] * (len(names) + 1), "---")]
    for row in ROWS:
        values = {name: row.of(found) for name, found in result.measures.items()}
        lines.append(
            _line(row.name, *(format(value, row.written) for value in values.values()), *_verdict(row, values))
        )
    return [*lines, "", *_sentences(result)]


def _verdict(row: Row, values: Mapping[str, float]) -> tuple[str, str]:
    if row.least is None and row.most is None:
        return "", ""
    target = f">= {row.least:{row.written}}" if row.most is None else f"<= {row.most:{row.written}}"
    missed = [name for name in (MODEL, INT8) if not row.reached(values[name])]
    return target, f"missed: {', '.join(missed)}" if missed else "yes"


def _sentences(result: Forecasting) -> list[str]:
    """Return what spans models: the margin over one minute, what int8 loses, the size."""
    model, small, baseline = (result.measures[name] for name in (MODEL, INT8, BASELINE))
    margin = model.clean_recall_5 - baseline.clean_recall_5
    loss = max(row.of(model) - row.of(small) for row in ROWS if row.least is not None)
    off = result.size_bytes / SIZE_BYTES - 1.0
    return [
        f"Clean onsets at 5 %: {100 * margin:.1f} points above one minute's logistic regression "
        f"(target {100 * MARGIN:g}: {_word(margin >= MARGIN)}).",
        f"int8 loses at most {100 * loss:.2f} points of recall "
        f"(target {100 * INT8_LOSS:g}: {_word(loss <= INT8_LOSS)}).",
        f"int8 file {result.size_bytes:,} bytes, {100 * off:+.1f} % of {SIZE_BYTES:,} "
        f"(target +-{100 * SIZE_TOLERANCE:g} %: {_word(abs(off) <= SIZE_TOLERANCE)}).",
        f"Test shards {result.counts.shards}; {result.counts.episodes:,} episodes, {result.counts.clean_ahead:,} clean "
        f"onset windows; {result.counts.uniform:,} uniform windows; {result.counts.shard_days:g} shard-days watched.",
    ]


def _word(reached: bool) -> str:
    return "reached" if reached else "missed"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
