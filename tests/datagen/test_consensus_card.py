"""The card of a consensus file says what was measured, and belongs to one file."""

from dataclasses import replace
from pathlib import Path

import pytest

from datagen.consensus.generate import RaceShape, generate_races
from datagen.consensus.score import CutScores
from datagen.consensus.verify import verify_races
from datagen.consensus_card import race_card
from nerv_fl.errors import DataError

HALF = CutScores(
    cut=0.5, races=900, first=0.71, majority=0.90, reputation=0.91, trees=0.95, oracle=0.98, candidates=3000,
    always_valid=0.93, disputed=0.95, valid_trees=0.97, valid_trees_deltas=0.98, balanced_trees=0.96,
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("races") / "races.h5"
    generate_races(made, RaceShape(shards=6, races=40, accounts=16, max_transactions=6))
    return made


def test_scores_and_rates_are_shown(path: Path) -> None:
    report = verify_races(path)
    card = race_card(path, report, scores=[HALF, replace(HALF, cut=1.0)], command="nerv-fl datagen consensus")
    tables = {table.title: table for table in card.sections}
    assert tables["Finalised candidate foreseen, honest races of test shards"].rows[0] == (
        "50 %", "900", "71.0 %", "90.0 %", "91.0 %", "95.0 %", "98.0 %",
    )  # fmt: skip
    assert tables["Validity foreseen, all races of test shards"].rows[1] == (
        "100 %", "3,000", "93.0 %", "95.0 %", "97.0 %", "98.0 %", "96.0 %",
    )  # fmt: skip
    assert tables["Rates"].rows[0][1] == f"{100 * report.invalid:.2f} %"
    assert tables["Contents"].rows[0] == ("races", "240")
    assert set(card.figures) == {"events-of-a-race", "outcome-by-votes-seen"}


def test_a_small_file_is_not_scored(path: Path) -> None:
    card = race_card(path, verify_races(path), scores=(), command="nerv-fl datagen consensus")
    assert [table.title for table in card.sections] == ["Contents", "Candidates by what was done to them", "Rates"]
    assert set(card.figures) == {"events-of-a-race"}


def test_without_an_encoder_its_column_is_empty(path: Path) -> None:
    card = race_card(path, verify_races(path), scores=[replace(HALF, valid_trees_deltas=None)], command="")
    assert card.sections[-1].rows[0][5] == ""


def test_a_report_of_another_file_is_refused(path: Path) -> None:
    report = replace(verify_races(path), content_sha256="0" * 64)
    with pytest.raises(DataError, match=r"races\.h5: its content hashes to \w{64}, expected 0{64} \(the report's\)$"):
        race_card(path, report, scores=(), command="")
