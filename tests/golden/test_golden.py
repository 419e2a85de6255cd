"""Results, help and settings are as they were frozen; `python -m tests.golden.freeze` freezes them again."""

from typing import Any

import pytest

from tests.golden.compare import differences
from tests.golden.freeze import compute_results, read_golden, read_results
from tests.golden.interface import help_texts, settings

CHANGED = "if this is meant: python -m tests.golden.freeze {name}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of this code, computed with pinned kernels."""
    return compute_results(tmp_path_factory.mktemp("golden") / "results.json")


@pytest.mark.parametrize("section", ["runs", "data", "shapley", "codecs"])
def test_results_are_bit_identical(found: dict[str, Any], section: str) -> None:
    """On another fingerprint (processor's vendor, libraries) numbers are compared with a tolerance, never skipped."""
    golden, exact = read_results(found["fingerprint"])

    changed = differences(found[section], golden[section], exact=exact, may_grow=section == "runs")
    assert list(changed) == []


def test_help_is_as_frozen() -> None:
    assert list(differences(help_texts(), read_golden("help"), exact=True)) == [], CHANGED.format(name="help")


def test_settings_are_as_frozen() -> None:
    assert list(differences(settings(), read_golden("settings"), exact=True)) == [], CHANGED.format(name="settings")


def test_a_record_may_gain_fields_and_lose_none() -> None:
    assert list(differences({"a": 1, "b": 2}, {"a": 1}, exact=True, may_grow=True)) == []
    assert list(differences({"b": 2}, {"a": 1}, exact=True, may_grow=True)) == ["/a: missing"]


HASHES = ("0" * 64, "f" * 64)


@pytest.mark.parametrize(
    ("found", "golden", "exact", "num_differences"),
    [
        ({"a": 1}, {"a": 1}, True, 0),
        ({"a": 1.0}, {"a": 1}, True, 1),
        ({"a": 1.0}, {"a": 1.0 + 1e-15}, True, 1),
        ({"a": 1.0}, {"a": 1.0 + 1e-6}, False, 0),
        ({"a": 1.0}, {"a": 2.5}, False, 1),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, False, 2),
        ([1, 2], [1], False, 1),
        (HASHES[0], HASHES[1], True, 1),
        (HASHES[0], HASHES[1], False, 0),
        ((1.5).hex(), (1.5 + 1e-9).hex(), False, 0),
        ((1.5).hex(), (3.8).hex(), False, 1),
        ("1,0.50,ok", "1,0.5000001,ok", False, 0),
        ("1,0.50,ok", "1,0.50,clone", False, 1),
        (None, 0.0, False, 1),
        (True, 1, False, 1),
    ],
)
def test_a_difference_is_seen(found: Any, golden: Any, exact: bool, num_differences: int) -> None:
    assert len(list(differences(found, golden, exact=exact))) == num_differences
