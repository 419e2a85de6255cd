"""A sweep as CSV (a line a run), JSON (everything) and Markdown (a line a setting)."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from nerv_fl.epsilon import format_epsilon
from simulations.sweep.results import Interval, Outcome, Setting

COLUMNS = ("setting", "epsilon", "accepted", "masked CE", "gap closed", "of central", "loss difference", "rel. drift")


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Return one line a run; floats keep every bit, what does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [item.name for item in fields(Outcome)]
    writer.writerow(names)
    for outcome in outcomes:
        row = asdict(outcome)
        writer.writerow(["" if row[name] is None else row[name] for name in names])
    return text.getvalue()


def to_json(outcomes: Sequence[Outcome], settings: Sequence[Setting], *, facts: dict[str, object]) -> str:
    """Return everything: what was swept, each setting's means, each run."""
    table = {**facts, "settings": [asdict(item) for item in settings], "runs": [asdict(item) for item in outcomes]}
    return json.dumps(table, indent=1, allow_nan=False) + "\n"


def rows_of(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    """Return the cells of each setting under `COLUMNS`; epsilon above the limit is marked."""
    return [
        (
            setting.label,
            format_epsilon(setting.epsilon) + (" !" if setting.over_limit else ""),
            _cell(setting.accepted, 1),
            _cell(setting.masked_ce, 3),
            _percent(setting.gap_closed),
            _percent(setting.central_share) if setting.central_share else "-",
            _cell(setting.difference, 4, sign="+"),
            _cell(setting.relative_drift, 3),
        )
        for setting in settings
    ]


def to_markdown(settings: Sequence[Setting], *, note: str) -> str:
    """Return one line a setting: means over seeds with the half widths of their 95 % intervals.

    Args:
        settings: In their order.
        note: What stands above the table.
    """
    lines = [note, "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(row) for row in rows_of(settings))]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Interval, digits: int, *, sign: str = "") -> str:
    mean = f"{value.mean:{sign}.{digits}f}"
    return mean if value.half is None else f"{mean} ± {value.half:.{digits}f}"


def _percent(value: Interval) -> str:
    scaled = Interval(mean=100 * value.mean, half=None if value.half is None else 100 * value.half)
    return f"{_cell(scaled, 1)} %"
