"""The card of a consensus file: what its races are like, and how well rules and an oracle foresee them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from datagen.card import Card, Table
from datagen.consensus.score import CutScores
from datagen.consensus.verify import RaceReport
from datagen.plots import Labels, Line, histogram, lines
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import TAMPERS
from nerv_fl.data.load_schema import SPLITS
from nerv_fl.errors import DataError

RULES: Final = ("first", "majority", "reputation", "trees", "oracle")
CAVEATS: Final = (
    "It is synthetic: a program simulated every race from a seed. It is not evidence about any real network.",
    "Committees are drawn anew for each race, so a validator's past says nothing; Byzantine ones have one plan each.",
    "The oracle knows who is Byzantine or behind and plays the race to its end; no node can.",
    "Races of one shard follow one another and share its accounts: train, validation and test are different shards.",
    "Deltas are not in the file: they follow from the transactions and whichever encoder is in force.",
)


def race_card(path: Path, report: RaceReport, *, scores: Sequence[CutScores], command: str) -> Card:
    """Return the card of a consensus file.

    Args:
        path: The file.
        report: What verifying it found.
        scores: What was scored on it; none where it is too small to fit trees on.
        command: The command that made it.

    Raises:
        DataError: If the report is another file's.
    """
    with RaceFile(path) as file:
        info = file.info
        splits = {name: len(file.shards_of(name)) for name in SPLITS}
        figures = {"events-of-a-race": _lengths(file.array("race/num_events"))}
    if info.content_sha256 != report.content_sha256:
        raise DataError(
            f"{path}: its content hashes to {info.content_sha256}, expected {report.content_sha256} (the report's)"
        )
    sections = [_contents(report, splits=splits), _tampers(report), _rates(report)]
    if scores:
        sections += [_outcomes(scores), _validity(scores)]
        figures["outcome-by-votes-seen"] = _figure(scores)
    return Card(
        title=f"Synthetic consensus races {path.name}",
        what=(
            f"{report.races:,} races of candidate blocks in {info.shards:,} shards: proposals, votes by reputation, "
            f"disputes, evidence and timeouts, with every candidate's transactions. Made to train and test predictors."
        ),
        generator=info.generator,
        command=command,
        seed=info.seed,
        content_sha256=info.content_sha256,
        sections=tuple(sections),
        figures=figures,
        caveats=CAVEATS,
    )


def _contents(report: RaceReport, *, splits: dict[str, int]) -> Table:
    rows = [("races", f"{report.races:,}"), ("shards", f"{report.shards:,}")]
    rows += [(f"shards to {name} on" if name == "train" else f"{name} shards", f"{n:,}") for name, n in splits.items()]
    rows += [
        ("candidates", f"{report.candidates:,}"),
        ("transactions", f"{report.transactions:,}"),
        ("events", f"{report.events:,}"),
        ("events of the longest race", f"{report.longest:,}"),
    ]
    return Table(title="Contents", header=("what", "number"), rows=tuple(rows))


def _tampers(report: RaceReport) -> Table:
    rows = tuple((name, f"{n:,}") for name, n in zip(TAMPERS, report.tampers, strict=True))
    return Table(title="Candidates by what was done to them", header=("tamper", "candidates"), rows=rows)


def _rates(report: RaceReport) -> Table:
    rows = (
        ("invalid", f"{100 * report.invalid:.2f} %", "of the candidates"),
        ("honest", f"{100 * report.honest:.2f} %", "of the races: every candidate is valid"),
        ("several rounds", f"{100 * report.several_rounds:.2f} %", "of the races: a round timed out"),
        ("no block", f"{100 * report.undecided:.2f} %", "of the races: three rounds timed out"),
    )
    return Table(title="Rates", header=("rate", "value", "what of"), rows=rows)


def _outcomes(scores: Sequence[CutScores]) -> Table:
    rows = tuple(
        (f"{100 * s.cut:.0f} %", f"{s.races:,}", *(f"{100 * getattr(s, rule):.1f} %" for rule in RULES)) for s in scores
    )
    return Table(
        title="Finalised candidate foreseen, honest races of test shards",
        header=("votes seen", "races", "proposed first", "majority", "by reputation", "boosted trees", "oracle"),
        rows=rows,
        numbers=tuple(range(7)),
    )


def _validity(scores: Sequence[CutScores]) -> Table:
    def row(s: CutScores) -> tuple[str, ...]:
        deltas = "" if s.valid_trees_deltas is None else f"{100 * s.valid_trees_deltas:.1f} %"
        rules = (s.always_valid, s.disputed, s.valid_trees)
        return (
            f"{100 * s.cut:.0f} %",
            f"{s.candidates:,}",
            *(f"{100 * rule:.1f} %" for rule in rules),
            deltas,
            f"{100 * s.balanced_trees:.1f} %",
        )

    return Table(
        title="Validity foreseen, all races of test shards",
        header=(
            "votes seen",
            "candidates",
            "always valid",
            "a fifth disputes",
            "trees",
            "trees and deltas",
            "balanced",
        ),
        rows=tuple(row(s) for s in scores),
        numbers=tuple(range(7)),
    )


def _lengths(num_events: npt.NDArray[np.uint16]) -> bytes:
    edges = np.arange(0, int(num_events.max()) + 8, 8)
    counts, _ = np.histogram(num_events, edges)
    return histogram(
        counts,
        edges=edges.astype(np.float64),
        labels=Labels(title="Events of a race", x="events", y="races"),
        marked=float(np.median(num_events)),
    )


def _figure(scores: Sequence[CutScores]) -> bytes:
    seen = np.array([100 * s.cut for s in scores])
    return lines(
        [
            Line(
                name=rule,
                x=seen,
                y=np.array([100 * getattr(s, rule) for s in scores]),
                dashed=rule == "oracle",
            )
            for rule in RULES
        ],
        labels=Labels(title="Finalised candidate foreseen, honest races", x="votes seen, %", y="right, %"),
    )
