"""What adversaries earned and who was found, from rows whose answers are known by hand."""

import pytest

from nerv_fl.records import RewardRow
from nerv_fl.report.attack_detection import flag_of, precision, summarise_kinds

ROLES = {4: ("sybil", 4), 5: ("sybil", 4), 6: ("sign_flip", 6)}


def row(node: int, payout_nano: int, *, flag: str = "", ci_high: float | None = 1.0) -> RewardRow:
    return RewardRow(
        round=1,
        node=node,
        value=None if ci_high is None else ci_high,
        se=None,
        ci_low=ci_high,
        ci_high=ci_high,
        reputation=0.3,
        payout_nano=payout_nano,
        flag=flag,
    )


ROWS = [
    row(0, 100),
    row(1, 300),
    row(1, 200, flag="loud"),
    row(4, 40, flag="clone"),
    row(4, 0, flag="clone"),
    row(5, 20),
    row(6, 0, ci_high=-0.5),
]


def test_each_kind_against_an_honest_row() -> None:
    honest, sign_flip, sybil = summarise_kinds(ROWS, ROLES)

    assert (honest.kind, honest.identities, honest.rows, honest.earned) == ("honest", 2, 3, 1.0)
    assert honest.detected == pytest.approx(1 / 3)
    assert (sybil.kind, sybil.identities, sybil.operators, sybil.rows) == ("sybil", 2, 1, 3)
    assert sybil.earned == pytest.approx((60 / 3) / (600 / 3))
    assert sybil.earned_by_operator == pytest.approx(60 / (600 / 2))
    assert sybil.detected == pytest.approx(2 / 3)
    assert sybil.flags == {"clone": 2}
    assert (sign_flip.earned, sign_flip.detected, sign_flip.flags) == (0.0, 1.0, {"negative": 1})


def test_precision_counts_the_detected_rows_alone() -> None:
    assert precision(ROWS, ROLES) == pytest.approx(3 / 4)
    assert precision([row(0, 1)], ROLES) is None


def test_without_an_honest_payout_there_is_no_ratio() -> None:
    (only,) = summarise_kinds([row(4, 10)], ROLES)

    assert (only.earned, only.earned_by_operator) == (None, None)


def test_an_interval_that_reaches_zero_shows_nothing() -> None:
    assert flag_of(row(1, 0, ci_high=0.0)) == ""
    assert flag_of(row(1, 0, ci_high=-1e-9)) == "negative"
    assert flag_of(row(1, 0, flag="not-finite", ci_high=None)) == "not-finite"
