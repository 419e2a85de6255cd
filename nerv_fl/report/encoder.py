"""The encoder's three sections: its arithmetic, its drift and its loss."""

from collections.abc import Callable

from nerv_fl.records import RoundRecord
from nerv_fl.report.charts import Chart, Rule, Series, line_chart
from nerv_fl.report.formatting import fixed, percent, plural, short, tiny
from nerv_fl.report.layout import Cell, figure, multiples, section, strong, table
from nerv_fl.report.load import ModelNumbers, Run, numbers_of
from nerv_fl.report.markup import Html, join


def homomorphism_section(run: Run) -> Html:
    """Return the affine encoder's error against the protocol's bound, and what that bound does not test."""
    bound = run.rounds[-1].encoder.homomorphism.bound
    worst = max(record.encoder.homomorphism.max for record in run.rounds)
    violations = sum(record.encoder.homomorphism.violations for record in run.rounds)
    count = max(record.encoder.homomorphism.n for record in run.rounds)
    outcome = join(
        "Largest error ",
        strong(tiny(worst)),
        f" on {count:,} batches a round, bound ",
        strong(short(bound)),
        "; ",
        plural(violations, "violation"),
        ".",
    )
    caution = join(
        strong("This bound tests arithmetic, range and finiteness, not learning: random weights pass it too"),
        _random_error(run),
        ".",
    )
    chart = Chart(
        label="Affine homomorphism error over rounds, logarithmic, with the bound",
        series=[
            _series(run, "max", lambda item: item.encoder.homomorphism.max),
            _series(run, "99.9 %", lambda item: item.encoder.homomorphism.p999, style="second"),
            _series(run, "mean", lambda item: item.encoder.homomorphism.mean, style="faint"),
        ],
        rules=[Rule(name="bound", style="bound", value=bound, text=short(bound))],
        rejected=run.rejected,
        log=True,
        format=tiny,
    )
    drawing = figure(
        "Affine homomorphism error", line_chart(chart), unit="float64, max-abs over coordinates, log scale"
    )
    return section("homomorphism", "Affine error", prose=(outcome, caution), figures=[drawing])


def drift_section(run: Run) -> Html:
    """Return drift with the companions without which it misleads, and the reference rows."""
    what = (
        "Drift is the homomorphism error of the transformer itself, |R(S') \N{MINUS SIGN} R(S)| for a state and "
        "the one after its batch: the error that training reduces."
    )
    flattening = join(
        "A flat encoder has no drift and knows nothing. ",
        strong("Residual share"),
        " falls when drift was won by flattening; ",
        strong("drift ratio"),
        ", which compares with unrelated states, cannot be lowered by flattening.",
    )
    marked = "Hollow points are rejected rounds: the encoder stayed as it was." if run.rejected else None
    chart = Chart(
        label="Drift over rounds, logarithmic",
        series=[
            _series(run, "max", lambda item: item.encoder.drift.max, style="faint"),
            _series(run, "mean", lambda item: item.encoder.drift.mean),
        ],
        rejected=run.rejected,
        log=True,
        format=tiny,
    )
    companions = multiples(
        _small(
            run, "Relative drift", unit="% of mean |sum of delta|", read=lambda item: 100 * item.encoder.drift.relative
        ),
        _small(run, "Drift ratio", unit="against unrelated states", read=lambda item: item.encoder.drift.ratio),
        _small(run, "Residual share", unit="% of var E_live", read=lambda item: 100 * item.encoder.residual_share),
        _small(run, "Effective rank", unit="of V", read=lambda item: item.encoder.effective_rank),
    )
    drift = figure("Drift", line_chart(chart), unit="log scale", note=marked)
    return section("drift", "Drift", prose=(what, flattening), figures=[drift, companions, _references(run)])


def loss_section(run: Run) -> Html:
    """Return the loss, and masked cross-entropy beside the two trivial models, with the verdict in words."""
    what = (
        "Data loss is the cross-entropy of masked balances plus one tenth of squared relative drift: "
        "the number that gate and Shapley value use."
    )
    loss = Chart(
        label="Data loss over rounds",
        series=[_series(run, "", lambda item: item.loss)],
        rejected=run.rejected,
        height=150,
        format=_three,
    )
    figures = [
        figure("Masked cross-entropy", line_chart(_cross_entropy(run, per_account=True)), unit="nats"),
        multiples(
            figure("The same, close up", line_chart(_cross_entropy(run, per_account=False)), unit="nats"),
            figure("Data loss", line_chart(loss), unit="nats, monitor samples"),
        ),
    ]
    return section("loss", "Loss", prose=(what, unigram_words(run.rounds[-1])), figures=figures)


def _cross_entropy(run: Run, *, per_account: bool) -> Chart:
    last = run.rounds[-1].encoder.masked_ce
    rules = [Rule(name="unigram", style="reference", value=last.unigram, text=_three(last.unigram))]
    if per_account:
        rules.append(Rule(name="per account", style="reference", value=last.per_account, text=_three(last.per_account)))
    return Chart(
        label="Masked cross-entropy over rounds beside " + " and ".join(rule.name for rule in rules),
        series=[_series(run, "encoder" if per_account else "", lambda item: item.encoder.masked_ce.value)],
        rules=rules,
        rejected=run.rejected,
        height=210 if per_account else 150,
        format=_three,
    )


def unigram_words(record: RoundRecord) -> Html:
    """Say plainly whether the encoder predicts masked balances better than counting does."""
    entropy = record.encoder.masked_ce
    pair = f"{_three(entropy.value)} against {_three(entropy.unigram)} nats"
    if entropy.value >= entropy.unigram:
        verdict = strong("The last masked cross-entropy is not below the unigram")
        return join(
            verdict, f": {pair}. On masked balances this encoder is no better than counting which are frequent."
        )
    verdict = strong("The last masked cross-entropy is below the unigram")
    account = "below" if entropy.value < entropy.per_account else "not below"
    return join(verdict, f": {pair}; it is {account} the per-account unigram, {_three(entropy.per_account)}.")


def _references(run: Run) -> Html:
    rows = {"Round 0, bootstrap": numbers_of(run.rounds[0])} if run.rounds[0].round == 0 else {}
    if run.federated:
        rows[f"Round {run.rounds[-1].round}, last"] = numbers_of(run.rounds[-1])
    rows.update(run.references)
    header = ("Encoder", "Drift", "Relative", "Ratio", "Residual share", "Rank", "Loss", "Masked CE")
    caption = "This run beside two references"
    return table(caption, header=header, rows=[_reference_row(name, row) for name, row in rows.items()])


def _reference_row(name: str, row: ModelNumbers) -> list[Cell]:
    texts = (
        tiny(row.drift),
        percent(row.relative),
        short(row.ratio),
        percent(row.residual_share),
        short(row.effective_rank),
        _three(row.loss),
        _three(row.masked_ce),
    )
    return [Cell(show=name, style="label"), *(Cell(show=text) for text in texts)]


def _random_error(run: Run) -> str:
    row = run.references.get("Random weights")
    if row is None or row.homomorphism_max is None:
        return ""
    return f" ({tiny(row.homomorphism_max)} in this run's measure)"


def _small(run: Run, title: str, *, unit: str, read: Callable[[RoundRecord], float]) -> Html:
    series = _series(run, "", read)
    chart = Chart(label=f"{title} over rounds", series=[series], rejected=run.rejected, height=140)
    return figure(title, line_chart(chart), unit=unit)


def _series(run: Run, name: str, read: Callable[[RoundRecord], float], *, style: str = "main") -> Series:
    return Series(name=name, style=style, points={record.round: read(record) for record in run.rounds})


def _three(value: float | None) -> str:
    return fixed(value, places=3)
