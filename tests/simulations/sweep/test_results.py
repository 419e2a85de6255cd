"""Means, intervals and tables, against numbers worked out by hand."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message
from scipy.stats import ttest_1samp

from simulations.sweep.centralized_baseline import Central
from simulations.sweep.grid import Point
from simulations.sweep.results import Interval, Outcome, interval, outcome_of, settings_of
from simulations.sweep.runs import is_finished
from simulations.sweep.tables import columns_of, rows_of, to_csv, to_json, to_markdown
from tests.federation.fake_grid import Meddle
from tests.federation.tiny_run import copy_run, run_rounds

ONE = Outcome(
    label="a=1",
    seed=7,
    epsilon=5.0,
    delta=1e-5,
    unit="record",
    samples_per_node=4096,
    rounds=20,
    accepted=19,
    difference=-0.3,
    ci_low=-0.31,
    ci_high=-0.29,
    masked_ce=3.4,
    unigram=3.7,
    per_account=3.1,
    gap_closed=0.5,
    central_share=0.6,
    central_masked_ce=3.05,
    drift=1e-3,
    relative_drift=0.1,
    seconds=100.0,
    loss=3.5,
)
TWO = replace(ONE, seed=8, accepted=20, gap_closed=0.6, epsilon=5.4)


def test_intervals_are_students() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values)
    assert found.half is not None
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_seed_has_no_interval() -> None:
    assert interval([2.0]) == Interval(mean=2.0, half=None)


def test_settings_gather_their_seeds_and_are_marked_where_one_spent_too_much() -> None:
    other = replace(ONE, label="a=2", central_share=None)
    first, second = settings_of([ONE, TWO, other], epsilon=5.1)
    assert (first.label, first.seeds, first.epsilon, first.over_limit) == ("a=1", (7, 8), 5.4, True)
    assert first.gap_closed is not None
    assert first.gap_closed.mean == pytest.approx(0.55)
    assert first.gap_closed.half == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert (second.seeds, second.over_limit, second.central_share) == ((7,), False, None)


def test_tables() -> None:
    settings = settings_of([ONE, TWO], epsilon=5.1)
    (row,) = rows_of(settings)
    assert row[:4] == ("a=1", "5.40 !", "19.5 ± 6.4", "3.400 ± 0.000")
    assert row[4:] == ("55.0 ± 63.5 %", "60.0 ± 0.0 %", "-0.3000 ± 0.0000", "0.100 ± 0.000")
    text = to_markdown(settings, note="what was run")
    assert text.splitlines()[0] == "what was run"
    assert text.splitlines()[-1].count("|") == 9
    (first, second) = csv.DictReader(io.StringIO(to_csv([ONE, replace(TWO, central_share=None)])))
    assert (float(first["gap_closed"]), second["central_share"]) == (0.5, "")
    table = json.loads(to_json([ONE, TWO], settings, facts={"epsilon": 5.1}))
    assert (table["epsilon"], len(table["runs"]), table["settings"][0]["seeds"]) == (5.1, 2, [7, 8])


OTHER = replace(
    ONE,
    masked_ce=None,
    unigram=None,
    per_account=None,
    gap_closed=None,
    central_masked_ce=None,
    drift=None,
    relative_drift=None,
    measures={"overload": 0.2, "metrics": 0.5},
    trivial={"overload": 0.3},
)


def test_another_task_is_shown_by_its_own_measures() -> None:
    settings = settings_of([OTHER, replace(OTHER, seed=8)], epsilon=None)
    (row,) = rows_of(settings)

    heads = ("setting", "epsilon", "accepted", "loss", "overload", "metrics", "of central", "loss difference")
    assert columns_of(settings) == heads
    assert row[3:] == (
        "3.5000 ± 0.0000",
        "0.2000 ± 0.0000",
        "0.5000 ± 0.0000",
        "60.0 ± 0.0 %",
        "-0.3000 ± 0.0000",
    )
    (line,) = csv.DictReader(io.StringIO(to_csv([OTHER])))
    assert (line["measures.overload"], line["trivial.overload"], line["masked_ce"]) == ("0.2", "0.3", "")


def test_each_row_of_a_sweep_names_its_mechanism_and_infinity_is_no_number() -> None:
    own = replace(ONE, label="sigma=0.7", mechanism="not the protocol's mechanism (sigma 0.7, clip 1.0)")
    none = replace(ONE, label="none", epsilon=None, mechanism="no privacy mechanism: epsilon is infinite")
    settings = settings_of([ONE, own, none], epsilon=None)
    rows = rows_of(settings)

    assert columns_of(settings)[-1] == "mechanism"
    assert [row[1] for row in rows] == ["5.00", "5.00", "infinite"]
    assert [row[-1] for row in rows] == ["the protocol's", own.mechanism, none.mechanism]
    table = json.loads(to_json([none], settings, facts={}), parse_constant=pytest.fail)
    assert table["runs"][0]["epsilon"] is None


def test_a_run_without_an_accepted_round_is_an_outcome_without_a_difference(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **{"federation.num_rounds": 1})
    run_rounds(folder, meddle=lose_every_second())
    point = Point(setting=(("seed", 7),), config=folder.config, epsilon=5.0, grown=False)

    assert is_finished(folder)
    found = outcome_of(point, folder, central=Central(num_samples=9, loss=1.0, masked_ce=2.0))
    assert (found.accepted, found.difference, found.ci_low, found.ci_high, found.central_share) == (0, 0, 0, 0, 0)


def lose_every_second() -> Meddle:
    """Return what loses every second reply."""
    seen: list[object] = []

    def lose(reply: Message) -> Message | None:
        seen.append(reply)
        return reply if len(seen) % 2 else None

    return lose
