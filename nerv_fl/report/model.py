"""The section of a model that is not the encoder: its loss and measures beside trivial models."""

from nerv_fl.report.charts import Chart, Rule, Series, line_chart
from nerv_fl.report.formatting import fixed, short
from nerv_fl.report.layout import Cell, figure, multiples, section, table
from nerv_fl.report.load import ModelNumbers, Run, numbers_of
from nerv_fl.report.markup import Html, join


def model_section(run: Run) -> Html:
    """Return a task's loss and measures over rounds, the lower the better, and what its trivial models reach."""
    what = join(f"The model is the task {run.config.task}. The gate and the Shapley values use its loss; ")
    guard = "a candidate must also keep every further measure within its limit. The lower the better, all of them."
    trivial = "Dashed lines are trivial models, fitted on the search pool." if run.rounds[-1].trivial else ""
    loss = Chart(
        label="Loss over rounds",
        series=[Series(name="", style="main", points={record.round: record.loss for record in run.rounds})],
        rules=_rules(run, "loss"),
        rejected=run.rejected,
        format=_four,
    )
    figures = [figure("Loss", line_chart(loss), unit="monitor samples")]
    small = [_measure(run, name) for name in run.rounds[-1].measures]
    figures += [multiples(*small)] if small else []
    prose = (join(what, guard), *([trivial] if trivial else []))
    return section("model", "Model", prose=prose, figures=[*figures, _references(run)])


def _measure(run: Run, name: str) -> Html:
    points = {record.round: record.measures[name] for record in run.rounds if name in record.measures}
    chart = Chart(
        label=f"{name} over rounds",
        series=[Series(name="", style="main", points=points)],
        rules=_rules(run, name),
        rejected=run.rejected,
        height=150,
        format=_four,
    )
    return figure(name.capitalize(), line_chart(chart))


def _rules(run: Run, name: str) -> list[Rule]:
    value = run.rounds[-1].trivial.get(name)
    return [] if value is None else [Rule(name="trivial", style="reference", value=value, text=short(value))]


def _references(run: Run) -> Html:
    rows = {f"Round {run.rounds[0].round}, start": numbers_of(run.rounds[0])}
    if run.federated:
        rows[f"Round {run.rounds[-1].round}, last"] = numbers_of(run.rounds[-1])
    rows.update(run.references)
    names = list(run.rounds[-1].measures)
    body = [_row(title, row, names=names) for title, row in rows.items()]
    trivial = run.rounds[-1].trivial
    if trivial:
        cells = [_cell(trivial.get(name)) for name in ("loss", *names)]
        body.append([Cell(show="Trivial models", style="label"), *cells])
    return table("This run beside its references", header=("Model", "Loss", *map(str.capitalize, names)), rows=body)


def _row(title: str, row: ModelNumbers, *, names: list[str]) -> list[Cell]:
    return [Cell(show=title, style="label"), _cell(row.loss), *(_cell(row.measures.get(name)) for name in names)]


def _cell(value: float | None) -> Cell:
    return Cell(show=_four(value))


def _four(value: float | None) -> str:
    return fixed(value, places=4)
