"""Round records and reward rows: every bit survives the file, and a file that is not one is refused."""

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import DataError
from nerv_fl.records import (
    REWARD_COLUMNS,
    Drift,
    EpsilonSpread,
    GateSummary,
    Homomorphism,
    MaskedCrossEntropy,
    NodeCounts,
    RewardRow,
    RewardsSummary,
    RoundRecord,
    Seconds,
    ShapleySummary,
    ValueSummary,
    read_rewards,
    read_rounds,
    rewards_to_csv,
    round_from_json,
    to_json,
)

RECORD = RoundRecord(
    round=3,
    accepted=True,
    reason="",
    step=0.5,
    homomorphism=Homomorphism(max=7e-16, p999=6e-16, mean=1e-16, bound=1e-9, n=30_000, violations=0),
    drift=Drift(mean=0.1, relative=0.2, ratio=0.3, max=0.4),
    residual_share=0.01,
    effective_rank=29.5,
    loss=1 / 3,
    masked_ce=MaskedCrossEntropy(value=3.7, unigram=3.8, per_account=3.1),
    epsilon=EpsilonSpread(min=1.0, median=2.0, max=3.0, delta=1e-5),
    nodes=NodeCounts(sampled=50, heard=49, admitted=48, refused={"signature": 1}, clones=2),
    shapley=ShapleySummary(method="surrogate", evaluations=128, se_max=1e-4, stop="budget"),
    gate=GateSummary(p_value=0.01, relative_drift=0.9, rank_ratio=1.0),
    value=ValueSummary(total=0.02, empty=0.001),
    pool_nano=10**16,
    carried_nano=7,
    seconds=Seconds(train=1.0, open=0.1, aggregate=0.1, shapley=2.0, gate=0.5, report=0.1, total=3.8),
    model_hash="c0ffee",
    faults={"offline": 1, "failed": 0, "late": 2},
)
BARE = replace(
    RECORD,
    round=0,
    reason='no, "nothing"\nwas heard — ever',
    epsilon=None,
    nodes=None,
    shapley=None,
    gate=GateSummary(p_value=None, relative_drift=None, rank_ratio=None),
    value=None,
    faults=None,
)
ROW = RewardRow(
    round=1, node=12, value=1 / 3, se=1e-4, ci_low=-0.1, ci_high=0.7, reputation=0.3, payout_nano=10**16 + 1, flag=""
)
UNHEARD = replace(ROW, node=13, value=None, se=None, ci_low=None, ci_high=None, payout_nano=0, flag='late, "very"')


OTHER = replace(
    RECORD,
    homomorphism=None,
    drift=None,
    residual_share=None,
    effective_rank=None,
    masked_ce=None,
    measures={"overload": 0.2},
    trivial={"overload": 0.5},
)


@pytest.mark.parametrize("record", [RECORD, BARE, OTHER], ids=["whole", "bare", "of another task"])
def test_record_comes_back_whole(record: RoundRecord) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert round_from_json(line, source="here") == record


def test_only_an_encoder_has_an_encoders_measures() -> None:
    assert RECORD.encoder.drift == RECORD.drift
    with pytest.raises(DataError, match=r"^homomorphism is null, expected the measures of an encoder$"):
        OTHER.encoder  # noqa: B018


def test_field_names_are_the_contract() -> None:
    table = json.loads(to_json(RECORD))
    assert list(table) == [
        *("round", "accepted", "reason", "step", "homomorphism", "drift", "residual_share", "effective_rank", "loss"),
        *("masked_ce", "epsilon", "nodes", "shapley", "gate", "value", "pool_nano", "carried_nano", "seconds"),
        *("model_hash", "rewards", "measures", "trivial", "faults", "failures"),
    ]
    assert list(table["homomorphism"]) == ["max", "p999", "mean", "bound", "n", "violations"]
    assert list(table["drift"]) == ["mean", "relative", "ratio", "max"]
    assert list(table["masked_ce"]) == ["value", "unigram", "per_account"]
    assert list(table["epsilon"]) == ["min", "median", "max", "delta"]
    assert list(table["nodes"]) == ["sampled", "heard", "admitted", "refused", "clones", "flagged"]
    assert list(table["shapley"]) == ["method", "evaluations", "se_max", "stop", "se_sample_max", "se_estimator_max"]
    assert list(table["gate"]) == ["p_value", "relative_drift", "rank_ratio", "ungated"]
    assert list(table["value"]) == ["total", "empty"]
    assert list(table["seconds"]) == ["train", "open", "aggregate", "shapley", "gate", "report", "total"]
    assert ",".join(REWARD_COLUMNS) == "round,node,value,se,ci_low,ci_high,reputation,payout_nano,flag"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_number_that_json_has_not_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"Out of range float values are not JSON compliant"):
        to_json(replace(RECORD, loss=number))


def test_missing_number_is_null_and_never_zero() -> None:
    table = json.loads(to_json(BARE))
    assert table["epsilon"] is None
    assert table["gate"]["p_value"] is None
    assert round_from_json(to_json(replace(RECORD, value=ValueSummary(total=0.0, empty=None))), source="x").value == (
        ValueSummary(total=0.0, empty=None)
    )


def test_a_record_from_before_the_rewards_summary_is_read() -> None:
    summary = RewardsSummary(paid_nano=7, slashed_nano=0, gini=0.5)
    paid = replace(RECORD, rewards=summary)
    assert round_from_json(to_json(paid), source="here").rewards == summary
    table = json.loads(to_json(paid))
    assert table["rewards"] == {"paid_nano": 7, "slashed_nano": 0, "gini": 0.5}
    del table["rewards"]
    assert round_from_json(json.dumps(table), source="here").rewards is None


def test_fields_of_a_later_version_are_passed_over() -> None:
    table = json.loads(to_json(RECORD)) | {"invented_later": 1}
    assert round_from_json(json.dumps(table), source="here") == RECORD


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"round": 1}', "'accepted'"),
        ("[]", "list indices must be integers or slices, not str"),
        ("null", "'NoneType' object is not subscriptable"),
        ('{"round": 1', "Expecting ',' delimiter: line 1 column 12 (char 11)"),
        ("", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_line_that_is_no_record_is_refused_by_its_place(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text(f"{to_json(RECORD)}\n{line}\n")
    with pytest.raises(DataError, match=f"^{re.escape(f'{path} line 2 is not a round record: {reason}')}$"):
        read_rounds(path)


def test_rounds_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text(f"{to_json(BARE)}\n{to_json(RECORD)}\n")
    assert read_rounds(path) == [BARE, RECORD]


def test_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none"
    for read in (read_rounds, read_rewards):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))} cannot be read: No such file or directory$"):
            read(path)


# --- Rewards ----------------------------------------------------------------------------------------------------------


def test_rows_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "rewards.csv"
    path.write_text(rewards_to_csv([ROW], header=True) + rewards_to_csv([UNHEARD], header=False))
    assert read_rewards(path) == [ROW, UNHEARD]


def test_csv_is_what_other_programs_expect() -> None:
    text = rewards_to_csv([ROW, UNHEARD], header=True)
    rows = list(csv.DictReader(text.splitlines()))
    assert rows[0]["payout_nano"] == "10000000000000001"
    assert rows[0]["value"] == "0.3333333333333333"
    assert (rows[1]["value"], rows[1]["flag"]) == ("", 'late, "very"')


numbers = st.none() | st.floats(allow_nan=False)


@given(value=numbers, se=numbers, reputation=st.floats(0, 1), payout=st.integers(0, 10**16))
def test_every_bit_of_a_row_survives(
    *, tmp_path_factory: pytest.TempPathFactory, value: float | None, se: float | None, reputation: float, payout: int
) -> None:
    path = tmp_path_factory.mktemp("rewards") / "rewards.csv"
    row = replace(ROW, value=value, se=se, reputation=reputation, payout_nano=payout)
    path.write_text(rewards_to_csv([row], header=True))
    assert read_rewards(path) == [row]


@pytest.mark.parametrize(("text", "found"), [("", "[]"), ("a,b\n1,2\n", "[['a', 'b']]")])
def test_foreign_table_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "rewards.csv"
    path.write_text(text)
    message = f"{path} begins with {found}, expected the columns {','.join(REWARD_COLUMNS)}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_rewards(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,x,,,,0.3,0,", "could not convert string to float: 'x'"),
        ("1,2,,,,,,0,", "could not convert string to float: ''"),
        ("1,2,,,,,0.3,0.5,", "invalid literal for int() with base 10: '0.5'"),
        ("1,2", "zip() argument 2 is shorter than argument 1"),
    ],
)
def test_row_that_is_no_reward_is_refused(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "rewards.csv"
    path.write_text(f"{','.join(REWARD_COLUMNS)}\n{row}\n")
    with pytest.raises(DataError, match=f"^{re.escape(f'{path} holds a row that is not a reward: {reason}')}$"):
        read_rewards(path)


@pytest.mark.parametrize("read", [read_rounds, read_rewards])
def test_bytes_that_are_not_text_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} is not UTF-8 text: invalid start byte at byte 0$"):
        read(path)
