"""The nodes that a simulation lost, and what the rounds were worth without them."""

from typing import Final

from nerv_fl.faults import FATES
from nerv_fl.records import RoundRecord
from nerv_fl.server.report.layout import Cell, section, strong, table
from nerv_fl.server.report.load import Run
from nerv_fl.server.report.markup import Html, join
from nerv_fl.server.report.numbers import percent, plural

HEADER: Final = ("Round", "Sampled", "Offline", "Failed", "Late", "Heard", "Outcome")


def faults_section(run: Run) -> list[Html]:
    """Return the section, or nothing for a run that simulates no faults."""
    records = [record for record in run.federated if record.faults is not None]
    if not records:
        return []
    what = (
        "This run simulates nodes that are out of reach, that fail in the middle of a round, and that answer after its "
        "deadline. Who failed or was late has spent its privacy and is paid nothing; nobody loses reputation for it."
    )
    return [
        section(
            "faults",
            "Faults",
            prose=(what, _lost_words(run, records)),
            figures=[table("Nodes lost, by round", header=HEADER, rows=map(_row, records), sortable=True)],
            wide=True,
        )
    ]


def _row(record: RoundRecord) -> list[Cell]:
    nodes, faults = record.nodes, record.faults or {}
    sampled, heard = (nodes.sampled, nodes.heard) if nodes else (0, 0)
    counts = (sampled, *(faults.get(fate, 0) for fate in FATES), heard)
    return [
        Cell(show=str(record.round), sort=float(record.round), style="label"),
        *(Cell(show=f"{count:,}", sort=float(count)) for count in counts),
        Cell(show="accepted" if record.accepted else record.reason, style="text"),
    ]


def _lost_words(run: Run, records: list[RoundRecord]) -> Html:
    sampled = sum(record.nodes.sampled for record in records if record.nodes)
    lost = {fate: sum((record.faults or {}).get(fate, 0) for record in records) for fate in FATES}
    parts = ", ".join(f"{count:,} {fate}" for fate, count in lost.items())
    needed = run.config.federation.min_heard_fraction
    poor = [item for item in records if item.nodes and item.nodes.heard < needed * item.nodes.sampled]
    return join(
        "Lost were ",
        strong(percent(sum(lost.values()) / sampled if sampled else None)),
        f" of all that were sampled: {parts}. In {plural(len(poor), 'round')} fewer than {percent(needed)} were heard, "
        "which rejects it; its pool carries over.",
    )
