"""The nodes that a simulation lost, those that failed, the rounds that were rejected, and why."""

from typing import Final

from nerv_fl.failure_reasons import add_counts, kind_of
from nerv_fl.faults import FATES
from nerv_fl.records import RoundRecord
from nerv_fl.report.formatting import percent, plural
from nerv_fl.report.layout import Cell, alert, section, strong, table
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join

HEADER: Final = ("Round", "Sampled", "Offline", "Failed", "Late", "Heard", "Outcome")
FAILURES_HEADER: Final = ("Reason", "Nodes", "Rounds", "First round", "Last round")
MAX_ALERTS: Final = 3
"""Reasons that the head of the page names; the tables below have all."""


def failures_alert(run: Run) -> Html | None:
    """Return what went wrong, for the head of the page: why the run stopped, and why rounds were rejected."""
    words = [f"The run stopped: {_sentence(run.stopped)}"] if run.stopped else []
    if run.rejected:
        words.append(f"{_rejected_words(run)} {_failed_words(run)}".strip())
    is_bad = run.stopped or len(run.rejected) == len(run.federated)
    return alert(*words, style="bad" if is_bad else "warn") if words else None


def failures_section(run: Run) -> list[Html]:
    """Return the section of nodes that failed, by reason, or nothing if none did."""
    records = [record for record in run.federated if record.failures]
    if not records:
        return []
    what = (
        "Nodes that failed gave no update, and are paid nothing. Reasons that differ in numbers only are counted "
        "together, in the words of the node with the lowest number. Epsilon counts a node that failed only if its own "
        "ledger holds the round. Deployed nodes keep their reasons to themselves."
    )
    totals = add_counts(record.failures or {} for record in records)
    rows = [_failure_row(reason, count, records=records) for reason, count in totals.items()]
    return [
        section(
            "failures",
            "Failed nodes",
            prose=(what,),
            figures=[table("Failures, by reason", header=FAILURES_HEADER, rows=rows, sortable=True)],
            wide=True,
        )
    ]


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


def _failure_row(reason: str, count: int, *, records: list[RoundRecord]) -> list[Cell]:
    kind = kind_of(reason)
    rounds = [item.round for item in records if any(kind_of(words) == kind for words in item.failures or {})]
    return [
        Cell(show=el("span", reason, class_="words"), sort=reason, style="label"),
        *(Cell(show=f"{number:,}", sort=float(number)) for number in (count, len(rounds), rounds[0], rounds[-1])),
    ]


def _rejected_words(run: Run) -> str:
    reasons: dict[str, list[RoundRecord]] = {}
    for record in run.federated:
        if not record.accepted:
            reasons.setdefault(kind_of(record.reason), []).append(record)
    ranked = sorted(reasons.values(), key=len, reverse=True)
    named = "; ".join(
        f"{first.reason} (round {first.round}" + (f" and {len(more)} more)" if more else ")")
        for first, *more in ranked[:MAX_ALERTS]
    )
    rest = f"; and {plural(len(ranked) - MAX_ALERTS, 'other reason')}" if len(ranked) > MAX_ALERTS else ""
    return f"{len(run.rejected)} of {plural(len(run.federated), 'round')} rejected: {named}{rest}."


def _failed_words(run: Run) -> str:
    totals = add_counts(record.failures or {} for record in run.federated if not record.accepted)
    if not totals:
        return ""
    named = "; ".join(f"{count} times: {reason}" for reason, count in list(totals.items())[:MAX_ALERTS])
    return _sentence(f"Nodes failed in them, {named}")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
