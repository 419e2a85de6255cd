"""Round by round: what the gate decided and why, who was heard, what was paid, and where the time went."""

from dataclasses import asdict
from typing import Final

from nerv_fl.records import RoundRecord, Seconds
from nerv_fl.report.bars import stacked_columns
from nerv_fl.report.formatting import MISSING, exact_nano, fixed, nerv, plural, short, tiny
from nerv_fl.report.layout import Cell, chip, figure, legend, section, strong, table
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join

GATE_HEADER: Final = (
    *("Round", "Gate", "Step", "p-value", "Loss", "Drift"),
    *("Heard", "Admitted", "Refused", "Clones", "Seconds"),
)
PAY_HEADER: Final = ("Round", "Valued by", "Evaluations", "Value", "Empty", "Pool", "Carried in", "Paid")
STAGES: Final = ("train", "open", "aggregate", "shapley", "gate", "report")


def rounds_section(run: Run) -> Html:
    """Return the gate's decisions, the value and pay of each round, and the seconds of each stage."""
    what = (
        "The gate compares the candidate with the encoder before it on chains of the certify pool: p-value is that of "
        "a one-sided paired test, step what the search chose. A rejected round leaves the encoder as it was."
    )
    value = (
        "Value is the cohort's gain over the empty coalition in nats on the search pool; Empty is what momentum and "
        "the server's own terms gained alone, and is paid to nobody. Pool, carried and paid are NERV; hover for NANO."
    )
    header = GATE_HEADER if run.is_encoder else tuple(name for name in GATE_HEADER if name != "Drift")
    gate = table("Gate and nodes", header=header, rows=map(_gate_row, run.rounds), sortable=True)
    rows = [_pay_row(record, paid_nano=run.paid_nano[record.round]) for record in run.federated]
    pay = table("Value and pay", header=PAY_HEADER, rows=rows, sortable=True) if rows else el("div")
    off = "The gate is off in this run: step 1 of every round was committed whatever it did, and nothing is certified."
    prose = (*(() if run.config.gate.enforce else (strong(off),)), what, value, _paid_words(run))
    return section("rounds", "Rounds", prose=prose, figures=[gate, pay, _seconds(run)], wide=True)


def _gate_row(record: RoundRecord) -> list[Cell]:
    p_value = record.gate.p_value if record.gate else None
    return [
        _round_cell(record),
        Cell(show=_decision(record), sort=record.reason if not record.accepted else "", style="text"),
        _number(record.step if record.round else None, show=f"{record.step:g}"),
        _number(p_value, show=short(p_value, digits=2)),
        _number(record.loss, show=fixed(record.loss, places=3)),
        *([_number(record.drift.mean, show=tiny(record.drift.mean))] if record.drift else []),
        *_node_cells(record),
        Cell(show=fixed(record.seconds.total, places=1), sort=record.seconds.total),
    ]


def _pay_row(record: RoundRecord, *, paid_nano: int) -> list[Cell]:
    amounts = (record.pool_nano, record.carried_nano, paid_nano)
    return [
        _round_cell(record),
        *_value_cells(record),
        *(Cell(show=nerv(amount), sort=str(amount), title=exact_nano(amount)) for amount in amounts),
    ]


def _round_cell(record: RoundRecord) -> Cell:
    return Cell(show=str(record.round), sort=float(record.round), style="label")


def _decision(record: RoundRecord) -> Html:
    if record.round == 0:
        return chip("bootstrap", style="quiet")
    if record.accepted:
        return chip("accepted", style="good")
    return join(chip("rejected", style="bad"), el("span", record.reason, class_="reason"))


def _node_cells(record: RoundRecord) -> list[Cell]:
    nodes = record.nodes
    if nodes is None:
        return [_number(None)] * 4
    reasons = ", ".join(f"{count} {reason}" for reason, count in nodes.refused.items())
    refused = sum(nodes.refused.values())
    return [
        Cell(show=f"{nodes.heard} / {nodes.sampled}", sort=float(nodes.heard)),
        _number(nodes.admitted, show=str(nodes.admitted)),
        Cell(show=str(refused), sort=float(refused), title=reasons or None),
        _number(nodes.clones, show=str(nodes.clones)),
    ]


def _value_cells(record: RoundRecord) -> list[Cell]:
    shapley, value = record.shapley, record.value
    total, empty = (value.total, value.empty) if value else (None, None)
    method = [Cell(show=MISSING, style="text"), _number(None)]
    if shapley is not None:
        parts = f"sample {short(shapley.se_sample_max)}, estimator {short(shapley.se_estimator_max)}"
        title = f"largest se {short(shapley.se_max)} ({parts}); stop: {shapley.stop}"
        method = [
            Cell(show=shapley.method, sort=shapley.method, title=title, style="text"),
            _number(shapley.evaluations, show=f"{shapley.evaluations:,}"),
        ]
    return [*method, _number(total, show=tiny(total)), _number(empty, show=tiny(empty))]


def _number(value: float | None, *, show: str = MISSING) -> Cell:
    return Cell(show=MISSING) if value is None else Cell(show=show, sort=float(value))


def _paid_words(run: Run) -> Html:
    paid = [record for record in run.federated if run.paid_nano[record.round]]
    if not paid:
        return join("No round has paid; pools carry over to the first one that does.")
    wrong = [item.round for item in paid if run.paid_nano[item.round] != item.pool_nano + item.carried_nano]
    if wrong:
        numbers = ", ".join(map(str, wrong))
        return strong(f"Payouts differ from the pool plus what was carried in round {numbers}.")
    total = sum(run.paid_nano.values())
    return join(
        f"In {plural(len(paid), 'paying round')} the payouts equal the pool plus what was carried, ",
        strong("to the last NANO"),
        f": {exact_nano(total)} in all.",
    )


def _seconds(run: Run) -> Html:
    columns = {record.round: _stages(record.seconds) for record in run.rounds}
    drawing = stacked_columns(columns, label="Seconds of each stage by round", unit="s")
    names = legend((f"stack-{index}", name) for index, name in enumerate((*STAGES, "other")))
    return figure("Seconds by stage", join(names, drawing), unit="wall time")


def _stages(seconds: Seconds) -> dict[str, float]:
    parts = {name: float(asdict(seconds)[name]) for name in STAGES}
    return parts | {"other": max(0.0, seconds.total - sum(parts.values()))}
