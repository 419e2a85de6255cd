from dataclasses import replace

from nerv_fl.records import RewardRow
from nerv_fl.server.report.nodes import NodeTotals, leaderboard

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
