from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.records import RewardRow, RewardsSummary
from nerv_fl.report.load import load_run
from nerv_fl.report.nodes import NodeTotals, leaderboard, nodes_section
from tests.report.fake_run import make_run

ROW = RewardRow(
    round=1, node=0, value=1.0, se=0.1, ci_low=0.8, ci_high=1.2, reputation=0.3, payout_nano=10, flag=""
)  # fmt: skip


def test_totals_sum_payouts_and_average_what_was_valued() -> None:
    rows = (
        ROW,
        replace(ROW, round=2, value=None, payout_nano=0, flag="clone", reputation=0.2),
        replace(ROW, round=3, value=2.0, payout_nano=5, reputation=0.25),
    )

    expected = NodeTotals(node=0, rounds=3, payout_nano=15, mean_value=1.5, reputation=0.25, flags=1)
    assert leaderboard(rows) == [expected]


def test_the_best_paid_lead_then_the_more_valuable_then_the_lower_number() -> None:
    rows = (
        replace(ROW, node=4, payout_nano=0, value=-1.0),
        replace(ROW, node=3, payout_nano=0, value=0.5),
        replace(ROW, node=2, payout_nano=7),
        replace(ROW, node=9, payout_nano=0, value=None),
        replace(ROW, node=1, payout_nano=0, value=0.5),
    )

    assert [totals.node for totals in leaderboard(rows)] == [2, 1, 3, 9, 4]


def test_nobody_is_nobody() -> None:
    assert leaderboard(()) == []


@pytest.mark.parametrize(
    ("slashed_nano", "said"),
    [(0, "Nothing was slashed."), (2_500_000_000, "2.50 NERV were slashed for repeated negative values.")],
)
def test_how_unequal_and_what_was_taken_back(slashed_nano: int, said: str, *, tmp_path: Path) -> None:
    run = load_run(make_run(num_rounds=3).write(tmp_path))
    assert "Gini" not in nodes_section(run)
    ginis = [None, 0.25, None, 0.75]
    rounds = tuple(
        replace(record, rewards=RewardsSummary(paid_nano=5, slashed_nano=slashed_nano * (number == 1), gini=gini))
        for number, (record, gini) in enumerate(zip(run.rounds, ginis, strict=True))
    )
    page = nodes_section(replace(run, rounds=rounds))
    assert "was 0.75 in the last round that paid, 0.25 to 0.75 over the run" in page
    assert said in page
