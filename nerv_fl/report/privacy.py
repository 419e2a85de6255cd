"""What was spent, of which unit, and what that protects."""

from collections.abc import Mapping

from nerv_fl.config import RunConfig
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.records import EpsilonSpread
from nerv_fl.report.charts import Chart, Rule, Series, line_chart
from nerv_fl.report.formatting import plural, short
from nerv_fl.report.layout import figure, section, strong
from nerv_fl.report.load import Run
from nerv_fl.report.markup import Html, el, join


def mechanism(config: RunConfig) -> Html:
    """Return what an epsilon of this run refers to: delta, unit, sampling, noise, and whether it is the protocol's."""
    privacy = config.privacy
    delta, rate = short(privacy.delta), short(config.sampling_rate)
    noise = f"sigma {short(privacy.sigma)}, clip {short(privacy.clip)}" if privacy.is_private else "no noise, no clip"
    if privacy.deviation:
        noise = f"{noise}; {privacy.deviation}"
    unit = f" (unit: one {config.privacy_unit}; Poisson sampling, q = {rate}; {noise})"
    return join(el("span", f"delta {delta}", class_="nowrap"), unit)


def privacy_section(run: Run) -> Html:
    """Return the epsilon of all nodes by round, the budget, and what the unit does and does not protect."""
    if not run.config.privacy.is_private:
        return section("privacy", "Privacy spent", prose=(_without_mechanism(run),), figures=[])
    own = (_own_mechanism(run),) if run.config.privacy.deviation else ()
    noise = (
        "Noise in a simulation is seeded: its epsilon describes deployment and protects from nobody who knows the seed."
    )
    steps = run.config.training.local_steps
    things = "chains" if run.config.records_per_unit > 1 else "records"
    rate = (
        f"Each node draws {run.config.training.expected_batch} of its {run.config.units_per_node:,} {things} in "
        f"expectation, q = {short(run.config.sampling_rate)}, {plural(steps, 'step')} a round; the "
        "PRV accountant adds up what a node has spent since round 1, and a node past its budget refuses to train."
    )
    return section("privacy", "Privacy spent", prose=(*own, rate, _unit(run), noise), figures=[_chart(run)])


def _own_mechanism(run: Run) -> Html:
    """Say that the epsilon is of a mechanism which no deployment may use."""
    sigma, clip = run.config.privacy.sigma, run.config.privacy.clip
    return join(
        "This is ",
        strong("not the protocol's mechanism"),
        f" (sigma {sigma}, clip {clip}): a deployment refuses it.",
    )


def _without_mechanism(run: Run) -> Html:
    """Say that nothing was protected, and what nodes did all the same."""
    return join(
        strong(run.config.privacy.deviation.capitalize()),
        ". Nodes neither clipped nor added noise, and nothing was accounted for: the run is a comparison without "
        f"privacy. Batches are drawn by Poisson sampling at q = {short(run.config.sampling_rate)} all the same.",
    )


def _unit(run: Run) -> Html:
    """Say what was added or removed, and what is not protected by that."""
    if run.is_encoder and run.config.records_per_unit > 1:
        return join(
            "The unit is ",
            strong("one chain"),
            f": all of its {run.config.data.steps} records, added or removed. This epsilon protects a state and a "
            "batch; an account that is in many chains ",
            strong("is not protected"),
            ".",
        )
    if run.is_encoder:
        return join(
            "The unit is ",
            strong("one step record"),
            ", a pair of states and the batch between them, added or removed. "
            "One state is in two records and an account is in all of them, so this epsilon protects ",
            strong("neither a state nor an account"),
            ".",
        )
    return join(
        "The unit is ",
        strong(f"one {run.config.privacy_unit}"),
        ", added or removed, samples taken as fixed rows. What is in many samples, as a minute is in many windows, ",
        strong("is not protected"),
        " by this epsilon.",
    )


def _chart(run: Run) -> Html:
    spent = {record.round: record.epsilon for record in run.rounds if record.epsilon is not None}
    if not spent:
        return el("p", "No node has trained yet, so nothing is spent.", class_="empty")
    budget = run.config.privacy.max_epsilon
    high = _points(spent, "max")
    chart = Chart(
        label="Epsilon over rounds, with the budget",
        series=[
            Series(name="max", style="main", points=high),
            Series(name="median", style="second", points=_points(spent, "median")),
            Series(name="min", style="faint", points=_points(spent, "min")),
        ],
        rules=[Rule(name="budget", style="bound", value=budget, text=short(budget))] if budget < float("inf") else [],
        bands={number: (low, high[number]) for number, low in _points(spent, "min").items()},
        zero=True,
        format=format_epsilon,
    )
    note = join("Epsilon at ", mechanism(run.config), ", by node: min, median and max.")
    return figure("Epsilon spent so far", line_chart(chart), unit="over all nodes", note=note)


def _points(spent: Mapping[int, EpsilonSpread], name: str) -> dict[int, float]:
    """Return one figure of the spread by round; rounds without an epsilon have none."""
    values = {number: getattr(item, name) for number, item in spent.items()}
    return {number: value for number, value in values.items() if value is not None}
