"""The card of a shard-load file: its rates, what baselines and the oracle score on it, and what it looks like."""

from pathlib import Path
from typing import Final

import numpy as np

from datagen.card import Card, Table
from datagen.plots import Labels, Line, bars, lines
from datagen.sharding.score import LoadScores, Recall
from datagen.sharding.verify import LoadReport
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import CPU, HORIZON, LATENCY, SPLITS
from nerv_fl.errors import DataError
from nerv_fl.types import FloatArray

DAY: Final = 1440
BEFORE: Final = 60
RULES: Final = ("persistence", "logistic", "trees", "oracle")
MAX_ONSETS: Final = 200
CAVEATS: Final = (
    "It is synthetic: a program simulated every shard from a seed. It is not evidence about any real network.",
    "All windows flatter every rule, since most minutes near an overload are already in one: judge by clean onsets.",
    "The oracle simulates on from the hidden state, which no node can see; some overloads have no precursor at all.",
    "Windows of one shard overlap and are not independent: train, validation and test are different shards.",
)


def load_card(path: Path, report: LoadReport, *, scores: LoadScores | None, command: str) -> Card:
    """Return the card of a load file.

    Args:
        path: The file.
        report: What verifying it found.
        scores: What was scored on it; None where it is too small to fit models on.
        command: The command that made it.

    Raises:
        DataError: If the report is another file's.
    """
    with LoadFile(path) as file:
        info = file.info
        if info.content_sha256 != report.content_sha256:
            raise DataError(
                f"{path}: its content hashes to {info.content_sha256}, expected {report.content_sha256} (the report's)"
            )
        splits = {name: len(file.shards_of(name)) for name in SPLITS}
        figures = {"a-day": _a_day(file), "before-an-onset": _before_an_onset(file)}
    sections = [_contents(report, splits=splits), _rates(report)]
    if scores is not None:
        sections.append(_scores(scores))
        figures["recall-on-clean-onsets"] = bars(
            {rule: 100 * getattr(scores.clean_onsets, rule) for rule in RULES},
            labels=Labels(title="Clean onsets found at 5 % false alarms", x="", y="recall, %"),
        )
    return Card(
        title=f"Synthetic shard load {path.name}",
        what=(
            f"{info.shards:,} shards, {info.steps:,} minutes each: ten metrics a monitor sees, the latency, when the "
            f"shard is overloaded, and what a rule would do about it. Made to train and test forecasters."
        ),
        generator=info.generator,
        command=command,
        seed=info.seed,
        content_sha256=info.content_sha256,
        sections=tuple(sections),
        figures={name: figure for name, figure in figures.items() if figure},
        caveats=CAVEATS,
    )


def _contents(report: LoadReport, *, splits: dict[str, int]) -> Table:
    rows = [("shards", f"{report.shards:,}"), ("minutes of each", f"{report.steps:,}")]
    rows += [(f"shards to {name} on" if name == "train" else f"{name} shards", f"{n:,}") for name, n in splits.items()]
    return Table(title="Contents", header=("what", "number"), rows=tuple(rows))


def _rates(report: LoadReport) -> Table:
    rows = (
        ("minutes in overload", f"{100 * report.overload_rate:.2f} %", "of all"),
        ("overloads", f"{report.episodes_per_day:.2f}", "begun, a shard and day"),
        ("overload ahead", f"{100 * report.ahead_rate:.2f} %", f"of all minutes: within the next {HORIZON}"),
        ("clean onset", f"{100 * report.onset_rate:.2f} %", "the same, of minutes after an hour without overload"),
    )
    return Table(title="Base rates", header=("rate", "value", "what of"), rows=rows)


def _scores(scores: LoadScores) -> Table:
    def row(name: str, recall: Recall) -> tuple[str, ...]:
        counts = (f"{100 * recall.base_rate:.2f} %", f"{recall.positives:,}")
        return (name, *counts, *(f"{100 * getattr(recall, rule):.1f} %" for rule in RULES))

    return Table(
        title="Recall at 5 % false alarms, on test shards",
        header=("windows", "base rate", "positives", *RULES),
        rows=(row("all", scores.all_windows), row("clean onsets", scores.clean_onsets)),
        numbers=tuple(range(1, 3 + len(RULES))),
    )


def _a_day(file: LoadFile) -> bytes:
    """Draw CPU and wait of the shard with most overload, over its first day with one."""
    overload = [file.shard(shard).overload for shard in range(min(file.info.shards, 20))]
    busiest = int(np.argmax([values.sum() for values in overload]))
    first = int(overload[busiest].argmax()) // DAY * DAY
    features = file.shard(busiest).features[first : first + DAY]
    hours = np.arange(len(features)) / 60
    return lines(
        [
            Line(name="CPU, %", x=hours, y=features[:, CPU].astype(np.float64)),
            Line(name="latency, s (at most 100 shown)", x=hours, y=np.minimum(features[:, LATENCY], 100.0)),
        ],
        labels=Labels(title=f"A day of shard {busiest}", x="hour", y=""),
    )


def _before_an_onset(file: LoadFile) -> bytes:
    """Draw the mean of CPU in the hour before overload, beside its mean over all minutes."""
    curves: list[FloatArray] = []
    usual: list[float] = []
    for shard in range(min(file.info.shards, 20)):
        block = file.shard(shard)
        usual.append(float(block.features[:, CPU].mean()))
        begins = np.flatnonzero(np.diff(block.overload.astype(np.int8)) == 1) + 1
        curves += [
            block.features[at - BEFORE : at + 10, CPU].astype(np.float64)
            for at in begins
            if at >= BEFORE and at + 10 <= len(block.overload) and not block.overload[at - BEFORE : at].any()
        ]
    if not curves:
        return b""
    minutes = np.arange(-BEFORE, 10, dtype=np.float64)
    return lines(
        [
            Line(name=f"mean of {len(curves[:MAX_ONSETS])} onsets", x=minutes, y=np.mean(curves[:MAX_ONSETS], axis=0)),
            Line(name="all minutes", x=minutes, y=np.full(len(minutes), np.mean(usual)), dashed=True),
        ],
        labels=Labels(title="CPU around the beginning of an overload", x="minutes", y="CPU, %"),
    )
