"""A sweep as CSV (a line a run), JSON (everything) and Markdown (a line a setting)."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from nerv_fl.privacy.epsilon import format_epsilon
from simulations.sweep.results import Interval, Outcome, Setting

COLUMNS = ("setting", "epsilon", "accepted", "masked CE", "gap closed", "of central", "loss difference", "rel. drift")
"""Columns of an encoder's sweep."""

MECHANISM = "mechanism"
"""Head of the last column of a sweep in which a privacy mechanism is not the protocol's."""


def columns_of(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Return the heads of a sweep's table: what the task is measured by, and a mechanism that is not the protocol's."""
    own: tuple[str, ...] = COLUMNS
    if settings and settings[0].masked_ce is None:
        measures = tuple(settings[0].measures)
        own = ("setting", "epsilon", "accepted", "loss", *measures, "of central", "loss difference")
    return (*own, MECHANISM) if any(setting.mechanism for setting in settings) else own


BY_NAME = ("measures", "trivial")
"""Fields of an outcome that hold numbers by name: a column of the CSV each."""


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Return one line a run; floats keep every bit, what does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [item.name for item in fields(Outcome) if item.name not in BY_NAME]
    further = [(kind, name) for kind in BY_NAME for name in _names(outcomes, kind)]
    writer.writerow([*names, *(f"{kind}.{name}" for kind, name in further)])
    for outcome in outcomes:
        row = asdict(outcome)
        values = [*(row[name] for name in names), *(row[kind].get(name) for kind, name in further)]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _names(outcomes: Sequence[Outcome], kind: str) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in getattr(outcome, kind)))


def to_json(outcomes: Sequence[Outcome], settings: Sequence[Setting], *, facts: dict[str, object]) -> str:
    """Return everything: what was swept, each setting's means, each run."""
    table = {**facts, "settings": [asdict(item) for item in settings], "runs": [asdict(item) for item in outcomes]}
    return json.dumps(table, indent=1, allow_nan=False) + "\n"


def rows_of(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    """Return the cells of each setting under `columns_of`; epsilon above the limit is marked."""
    has_note = any(setting.mechanism for setting in settings)
    return [
        (
            setting.label,
            format_epsilon(setting.epsilon) + (" !" if setting.over_limit else ""),
            _cell(setting.accepted, 1),
            *_measured(setting),
            *((setting.mechanism or "the protocol's",) if has_note else ()),
        )
        for setting in settings
    ]


def _measured(setting: Setting) -> tuple[str, ...]:
    """Return the cells of what a setting's models are measured by."""
    central, difference = _percent(setting.central_share), _cell(setting.difference, 4, sign="+")
    if setting.masked_ce is None:
        measures = (_cell(value, 4) for value in setting.measures.values())
        return (_cell(setting.loss, 4), *measures, central, difference)
    return (
        _cell(setting.masked_ce, 3),
        _percent(setting.gap_closed),
        central,
        difference,
        _cell(setting.relative_drift, 3),
    )


def to_markdown(settings: Sequence[Setting], *, note: str) -> str:
    """Return one line a setting: means over seeds with the half widths of their 95 % intervals.

    Args:
        settings: In their order.
        note: What stands above the table.
    """
    heads = columns_of(settings)
    lines = [note, "", _line(heads), _line(["---"] * len(heads)), *(_line(row) for row in rows_of(settings))]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Interval | None, digits: int, *, sign: str = "") -> str:
    if value is None:
        return "-"
    mean = f"{value.mean:{sign}.{digits}f}"
    return mean if value.half is None else f"{mean} ± {value.half:.{digits}f}"


def _percent(value: Interval | None) -> str:
    if value is None:
        return "-"
    scaled = Interval(mean=100 * value.mean, half=None if value.half is None else 100 * value.half)
    return f"{_cell(scaled, 1)} %"
