"""What the simulated adversaries earned, whether they were found, and what they would have done without the gate."""

from nerv_fl.report.attack_detection import HONEST, KindSummary, precision, summarise_kinds
from nerv_fl.report.formatting import fixed, percent, plural, signed
from nerv_fl.report.layout import Cell, section, strong, table
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, join

HEADER = ("Kind", "Identities", "Operators", "Updates", "Earned", "By operator", "Detected", "Flagged as")


def adversaries_section(run: Run) -> list[Html]:
    """Return the section, or nothing for an honest federation."""
    if not run.roles:
        return []
    what = (
        "This run simulates nodes that cheat. Earned is a kind's mean payout for an update, over an honest node's; "
        "By operator counts all identities of one operator together. Detected is the part of its updates that was "
        "flagged, refused, or shown to be worth less than nothing; for honest nodes it is the false alarm."
    )
    rows = [_row(kind) for kind in summarise_kinds(run.rewards, run.roles)]
    return [
        section(
            "adversaries",
            "Adversaries",
            prose=(what, _found_words(run), _gate_words(run)),
            figures=[table("Adversaries by kind", header=HEADER, rows=rows, sortable=True)],
            wide=True,
        )
    ]


def _row(kind: KindSummary) -> list[Cell]:
    flags = ", ".join(f"{count} {flag}" for flag, count in kind.flags.items())
    return [
        Cell(show=kind.kind.replace("_", " "), sort=kind.kind, style="label"),
        _count(kind.identities),
        _count(kind.operators),
        _count(kind.rows),
        _times(kind.earned),
        _times(kind.earned_by_operator),
        Cell(show=percent(kind.detected), sort=kind.detected),
        Cell(show=flags or "none", sort=flags, style="text"),
    ]


def _count(value: int) -> Cell:
    return Cell(show=f"{value:,}", sort=float(value))


def _times(value: float | None) -> Cell:
    return Cell(show=f"{fixed(value, places=2)} x" if value is not None else fixed(None, places=2), sort=value)


def _found_words(run: Run) -> Html:
    summaries = summarise_kinds(run.rewards, run.roles)
    attacks = [item for item in summaries if item.kind != HONEST]
    rows = sum(item.rows for item in attacks)
    found = sum(item.detected * item.rows for item in attacks)
    alarm = next((item.detected for item in summaries if item.kind == HONEST), None)
    return join(
        f"{plural(len(run.roles), 'node')} of {run.config.federation.num_nodes} play an attack. ",
        "Over all of them, recall is ",
        strong(percent(found / rows if rows else None)),
        ", precision ",
        strong(percent(precision(run.rewards, run.roles))),
        f"; {percent(alarm)} of the honest updates were detected.",
    )


def _gate_words(run: Run) -> Html:
    """Return what step 1 of each round would have done to the loss, untested, beside what was committed."""
    ungated = [item.gate.ungated for item in run.federated if item.gate is not None and item.gate.ungated is not None]
    if not ungated or len(run.rounds) < 2:  # noqa: PLR2004
        return join("No round came as far as the gate.")
    worse = sum(change > 0 for change in ungated)
    change = run.rounds[-1].loss - run.rounds[0].loss
    return join(
        f"Untested, step 1 would have raised the search pool's loss in {worse} of {plural(len(ungated), 'round')} "
        f"(change {signed(min(ungated))} to {signed(max(ungated))} nats). Over the run the loss of what was committed "
        "changed by ",
        strong(signed(change)),
        " nats.",
    )
