import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.errors import DataError
from nerv_fl.report.load import load_run
from tests.report.fake_run import make_run


def message(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_run(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", ["config.toml", "manifest.json", "rounds.jsonl"])
def test_a_missing_file_is_named_with_what_was_expected(tmp_path: Path, name: str) -> None:
    make_run().write(tmp_path)
    (tmp_path / name).unlink()

    expected = "expected a run folder with config.toml, manifest.json, rounds.jsonl and rewards.csv"
    assert message(tmp_path) == f"{tmp_path / name} is missing, {expected}"


def test_missing_rewards_are_named_with_what_was_expected(tmp_path: Path) -> None:
    make_run().write(tmp_path)
    (tmp_path / "rewards.csv").unlink()

    assert message(tmp_path) == f"{tmp_path / 'rewards.csv'} is missing, expected the payouts of 20 recorded rounds"


def test_a_run_with_nothing_but_its_bootstrap_needs_no_rewards(tmp_path: Path) -> None:
    make_run(recorded=0).write(tmp_path)
    (tmp_path / "rewards.csv").unlink()

    assert load_run(tmp_path).rewards == ()


BREAK: list[tuple[str, Callable[[str], str], str]] = [
    ("config.toml", lambda text: text + "[gait]\nx = 1\n", "is not a run's configuration: setting 'gait.x' is unknown"),
    ("config.toml", lambda text: "seed =", "is not a run's configuration: Invalid value"),
    ("manifest.json", lambda text: text[:40], "is not JSON: "),
    ("manifest.json", lambda text: "[]", "holds a list, expected a JSON object"),
    ("rounds.jsonl", lambda text: text[:-50], "line 21 is not a round record: "),
    ("rounds.jsonl", lambda text: text.replace('"loss":3.7604', '"loss":null'), "line 1: loss is None, expected a num"),
    ("rewards.csv", lambda text: "a,b\n", "begins with [['a', 'b']], expected the columns round,node,value,"),
]


@pytest.mark.parametrize(("name", "spoil", "expected"), BREAK)
def test_a_spoilt_file_is_named_with_what_is_wrong(
    name: str, spoil: Callable[[str], str], *, expected: str, tmp_path: Path
) -> None:
    path = make_run().write(tmp_path) / name
    path.write_text(spoil(path.read_text()))

    assert re.match(re.escape(f"{path} ") + re.escape(expected), message(tmp_path))


def test_an_incomplete_final_result_names_the_missing_number(tmp_path: Path) -> None:
    run = make_run()
    del run.manifest["final"]["ci_low"]  # type: ignore[attr-defined]

    expected = (
        "manifest.json: final lacks the number 'ci_low', expected loss_before, loss_after, difference, ci_low, "
        "ci_high, chains, confidence, drift_before, drift_after"
    )
    assert message(run.write(tmp_path)) == f"{tmp_path}/{expected}"


def test_references_must_be_an_object(tmp_path: Path) -> None:
    run = make_run()
    run.manifest["references"] = [1]

    expected = "manifest.json: references is [1], expected an object of random_weights and v_alone"
    assert message(run.write(tmp_path)) == f"{tmp_path}/{expected}"


def test_references_may_lack_measures(tmp_path: Path) -> None:
    rows = load_run(make_run().write(tmp_path)).references

    assert rows["Random weights"].drift == 0.211
    assert rows["V alone"].ratio is None
    assert rows["V alone"].masked_ce is None


def test_payouts_of_rounds_that_are_not_recorded_are_left_out(tmp_path: Path) -> None:
    run = make_run()
    del run.rounds[-1]

    loaded = load_run(run.write(tmp_path))
    assert max(row.round for row in loaded.rewards) == 19
    assert sum(loaded.paid_nano.values()) == sum(row.payout_nano for row in run.rewards if row.round < 20)
    assert not loaded.complete


def test_facts_are_the_manifest_without_what_has_its_own_place(tmp_path: Path) -> None:
    run = make_run()
    run.manifest["pools"] = ["search", "final"]

    facts = load_run(run.write(tmp_path)).facts
    assert facts["versions.torch"] == "2.13.0"
    assert facts["pools"] == "search, final"
    assert not [key for key in facts if key.startswith(("references", "final"))]


@pytest.mark.parametrize(
    ("change", "improved"),
    [({}, True), ({"ci_high": 0.001}, False), ({"loss_after": 3.8, "ci_low": 0.01, "ci_high": 0.05}, False)],
)
def test_the_final_pool_improved_only_if_the_interval_excludes_zero(
    change: dict[str, float], improved: bool, *, tmp_path: Path
) -> None:
    run = make_run()
    run.manifest["final"] |= change  # type: ignore[operator]

    final = load_run(run.write(tmp_path)).final
    assert final is not None
    assert final.improved is improved


def test_the_fake_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = make_run(recorded=3)
    loaded = load_run(run.write(tmp_path))

    assert loaded.rounds == tuple(run.rounds)
    assert loaded.rewards == tuple(run.rewards)
    assert replace(loaded.config) == run.config
    assert json.loads((tmp_path / "manifest.json").read_text()) == run.manifest


def test_roles_are_read_from_the_roster_and_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    folder = make_run(num_rounds=1).write(tmp_path)
    assert load_run(folder).roles == {}
    (folder / "roster.json").write_text('{"0": {"weight": 1.0}, "4": {"role": "sybil", "operator": 3}}')
    assert load_run(folder).roles == {4: ("sybil", 3)}

    (folder / "roster.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"roster\.json is not a roster"):
        load_run(folder)
