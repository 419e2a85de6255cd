"""The card of a shard-load file says what was measured, and belongs to one file."""

from dataclasses import replace
from pathlib import Path

import pytest

from datagen.load_card import load_card
from datagen.sharding import generate_load, verify_load
from datagen.sharding.score import LoadScores, Recall
from nerv_fl.errors import DataError

CLEAN = Recall(
    base_rate=0.007, positives=31, negatives=400, persistence=0.801, logistic=0.902, trees=0.953, oracle=0.964
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("load") / "load.h5"
    generate_load(made, shards=12, steps=2880, seed=7)
    return made


def test_scores_and_rates_are_shown(path: Path) -> None:
    report = verify_load(path)
    scores = LoadScores(all_windows=replace(CLEAN, base_rate=0.03), clean_onsets=CLEAN)
    card = load_card(path, report, scores=scores, command="nerv-fl datagen sharding")
    tables = {table.title: table for table in card.sections}
    assert tables["Recall at 5 % false alarms, on test shards"].rows[1] == (
        "clean onsets", "0.70 %", "31", "80.1 %", "90.2 %", "95.3 %", "96.4 %",
    )  # fmt: skip
    assert tables["Base rates"].rows[0][1] == f"{100 * report.overload_rate:.2f} %"
    assert {"a-day", "before-an-onset", "recall-on-clean-onsets"} == set(card.figures)


def test_a_small_file_is_not_scored(path: Path) -> None:
    card = load_card(path, verify_load(path), scores=None, command="nerv-fl datagen sharding")
    assert [table.title for table in card.sections] == ["Contents", "Base rates"]


def test_anothers_report_is_refused(path: Path) -> None:
    report = replace(verify_load(path), content_sha256="ab" * 32)
    with pytest.raises(
        DataError, match=rf"its content hashes to [0-9a-f]{{64}}, expected {'ab' * 32} \(the report's\)"
    ):
        load_card(path, report, scores=None, command="x")
