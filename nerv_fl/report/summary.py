"""The head of the page: what came out, in one sentence, one strip of rounds and a few tiles."""

from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.records import FinalPool
from nerv_fl.report.bars import Interval, interval_chart
from nerv_fl.report.faults import failures_alert
from nerv_fl.report.formatting import duration, exact_nano, fixed, nerv, percent, plural, short, signed, tiny
from nerv_fl.report.layout import chip, strong
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join
from nerv_fl.report.privacy import mechanism


def header(run: Run) -> Html:
    """Return the run's name, state, verdict, strip of rounds and final-pool result."""
    name = el("h1", run.config.name, el("small", f"seed {run.config.seed}"))
    top = el("div", el("p", "nerv_fl federated run", class_="eyebrow"), _status(run), class_="top")
    if not run.rounds:
        return el("header", top, name, failures_alert(run), _empty())
    return el("header", top, name, failures_alert(run), _verdict(run), _strip(run), _final(run))


def tiles(run: Run) -> Html:
    """Return the numbers that a reader looks for first."""
    first, last = run.rounds[0], run.rounds[-1]
    accepted = len(run.federated) - len(run.rejected)
    nodes = {row.node for row in run.rewards}
    paid = sum(run.paid_nano.values())
    rejections = plural(len(run.rejected), "rejection") if run.federated else "none has run yet"
    return el(
        "dl",
        _tile("Rounds accepted", f"{accepted} of {len(run.federated)}", note=rejections),
        _tile("Loss", fixed(last.loss, places=3), note=f"{signed(last.loss - first.loss)} since the bootstrap"),
        *_model_tiles(run),
        _tile("Epsilon, at most", _epsilon(run), note=_epsilon_note(run)),
        _tile("Paid out", nerv(paid, places=0), note="NERV", title=exact_nano(paid)),
        _tile("Nodes taking part", f"{len(nodes):,}", note=f"of {run.config.federation.num_nodes:,} registered"),
        _tile("Wall time", duration(sum(item.seconds.total for item in run.rounds)), note="all rounds together"),
        class_="tiles",
    )


def _model_tiles(run: Run) -> list[Html]:
    """Return the tiles of drift, or of another task's measures."""
    first, last = run.rounds[0], run.rounds[-1]
    if not run.is_encoder:
        return [
            _tile(name.capitalize(), fixed(value, places=3), note=f"from {fixed(first.measures[name], places=3)}")
            for name, value in last.measures.items()
        ]
    before, after = first.encoder.drift, last.encoder.drift
    return [
        _tile("Drift", tiny(after.mean), note=f"{_times(before.mean, after.mean)} the bootstrap's"),
        _tile("Relative drift", percent(after.relative), note=f"from {percent(before.relative)}"),
    ]


def _tile(name: str, value: str, *, note: str, title: str | None = None) -> Html:
    return el("div", el("dt", name), el("dd", value, title=title), el("dd", note, class_="note"))


def _status(run: Run) -> Html:
    planned = run.config.federation.num_rounds
    if run.stopped:
        return chip(
            f"stopped without updates after round {run.rounds[-1].round if run.rounds else 0} of {planned}", style="bad"
        )
    if run.complete and len(run.rejected) == len(run.federated):
        return chip(f"ended: none of {plural(planned, 'round')} accepted", style="bad")
    if run.complete:
        return chip(f"complete: {plural(planned, 'round')}", style="good")
    if not run.rounds:
        return chip("no round yet", style="quiet")
    if not run.federated:
        return chip("bootstrap only", style="quiet")
    return chip(f"stopped after round {run.rounds[-1].round} of {planned}", style="warn")


def _verdict(run: Run) -> Html:
    first, last = run.rounds[0], run.rounds[-1]
    if not run.federated:
        text = join(
            "Only the bootstrap is recorded: loss ",
            strong(fixed(first.loss, places=3)),
            *([", drift ", strong(tiny(first.drift.mean))] if first.drift else []),
            "." if run.stopped else ". No node has trained yet.",
        )
        return el("p", text, class_="verdict")
    accepted = len(run.federated) - len(run.rejected)
    parts = [
        strong(f"{accepted} of {plural(len(run.federated), 'round')}"),
        " accepted; loss ",
        strong(f"{fixed(first.loss, places=3)} \N{RIGHTWARDS ARROW} {fixed(last.loss, places=3)}"),
    ]
    if first.drift and last.drift:
        parts += ["; drift ", strong(f"{tiny(first.drift.mean)} \N{RIGHTWARDS ARROW} {tiny(last.drift.mean)}")]
    if not run.config.privacy.is_private:
        parts += ["; ", strong(run.config.privacy.deviation)]
    elif last.epsilon is not None:
        parts += ["; epsilon max ", strong(_epsilon(run)), " at ", mechanism(run.config)]
    return el("p", *parts, ".", class_="verdict")


def _epsilon(run: Run) -> str:
    if not run.config.privacy.is_private:
        return format_epsilon(None)
    spent = [item.epsilon.max for item in run.rounds if item.epsilon is not None and item.epsilon.max is not None]
    return format_epsilon(max(spent)) if spent else short(None)


def _epsilon_note(run: Run) -> str:
    """Return what the epsilon is at and of; where it is not of the protocol's mechanism, that too."""
    privacy = run.config.privacy
    if not privacy.is_private:
        return privacy.deviation
    parts = (f"at delta {short(privacy.delta)}, per {run.config.privacy_unit}", privacy.deviation)
    return "; ".join(filter(None, parts))


def _strip(run: Run) -> Html | None:
    if not run.federated:
        return None
    states = {item.round: "accepted" if item.accepted else f"rejected, {item.reason}" for item in run.federated}
    numbers = range(1, max(run.config.federation.num_rounds, *states) + 1)
    cells = (_strip_cell(number, states.get(number, "missing")) for number in numbers)
    return el("ol", *cells, class_="strip", aria_label="Rounds, accepted or rejected")


def _strip_cell(number: int, state: str) -> Html:
    text = f"Round {number}: " + ("not run" if state == "missing" else state)
    return el("li", el("span", text, class_="hidden"), class_=state.partition(",")[0], title=text)


def _final(run: Run) -> Html:
    final = run.final
    if final is None:
        closed = f": {run.final_closed}" if run.final_closed else ""
        note = (
            "The final pool stays closed until the last round."
            if not run.complete
            else f"The final pool was not opened{closed}."
        )
        return el("p", note, class_="note")
    verdict = _final_words(final)
    interval = Interval(
        name="",
        value=final.difference,
        low=final.ci_low,
        high=final.ci_high,
        style="good" if final.improved else "bad",
        text=f"{signed(final.difference)} ({signed(final.ci_low)} to {signed(final.ci_high)})",
    )
    drawing = interval_chart(
        [interval], label="Paired difference of loss on the final pool", title="nats", row_height=26
    )
    extended = _extended_note(run)
    return el("div", el("div", el("h2", "Final pool, opened once"), verdict, *extended), drawing, class_="final")


def _extended_note(run: Run) -> list[Html]:
    """Return what the final pool does not say of a run that was extended or set back after it was opened."""
    if run.final_round is None:
        return []
    if run.final_round < run.rounds[-1].round:
        change, reason = (
            f"extended afterwards to {plural(run.config.federation.num_rounds, 'round')}",
            "since the decision to extend may depend on the first result",
        )
    else:
        change, reason = "set back to an earlier round afterwards", "which is opened once"
    text = (
        f"This is the model after round {run.final_round}, when the pool was opened. The run was {change}; its last "
        f"model was not measured on this pool, {reason}."
    )
    return [el("p", text, class_="note")]


def _final_words(final: FinalPool) -> Html:
    words = "lower than the bootstrap's" if final.improved else "not shown to be lower than the bootstrap's"
    text = join(
        "Held-out loss is ",
        strong(words),
        f": {fixed(final.loss_before, places=3)} \N{RIGHTWARDS ARROW} ",
        f"{fixed(final.loss_after, places=3)} over {plural(final.chains, 'chain')} that no node and no gate has seen, ",
        f"a paired difference of {signed(final.difference)} nats with the {short(100 * final.confidence)} % interval ",
        f"{signed(final.ci_low)} to {signed(final.ci_high)}, which ",
        "includes 0." if final.ci_low <= 0 <= final.ci_high else "excludes 0.",
    )
    if final.drift_before is not None and final.drift_after is not None:
        before, after = tiny(final.drift_before), tiny(final.drift_after)
        change = el("span", f"{before} \N{RIGHTWARDS ARROW} {after}", class_="nowrap")
        text = join(text, " Drift there: ", change, ".")
    return el("p", text)


def _times(before: float, after: float) -> str:
    return f"{short(after / before, digits=2)} \N{MULTIPLICATION SIGN}" if before else short(None)


def _empty() -> Html:
    text = (
        "No round is recorded yet. The bootstrap writes round 0 as soon as it has an encoder; "
        "write this report again after that."
    )
    return el("p", text, class_="verdict")
